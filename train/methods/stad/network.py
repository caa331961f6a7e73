"""STAD, "Uninformed Students" (arXiv 1911.02357): students imitate a teacher's descriptors.

Compared with denguir/student-teacher-anomaly-detection (commit fc279ef), which has the same
targets, e, v, standardisation and mean over scales, and LuyaooChen/uninformed-students-pytorch
(commit 3c5661e), which takes the root of e.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from stpm.runtime.errors import StpmError
from stpm.runtime.output.map_score import MAXIMUM
from stpm.train.backbones import IMAGENET_MEAN, IMAGENET_STD
from stpm.train.methods.contract import Network, Upsample
from stpm.train.methods.image_score import ImageScore
from stpm.train.methods.stad.patch_networks import DESCRIPTOR_SIZE, PatchNetworks, check_patch_sizes
from stpm.train.methods.stad.teacher import TeacherOptions


@dataclass(frozen=True)
class StadConfig:
    """What fixes teacher and students; see `Config`.

    Attributes:
        input_size: (height, width) in pixels of the image that the networks see.
        patch_sizes: receptive fields p, one for one scale or several to be averaged.
        students: M, a scale.
        score: see `ImageScore`.
        teacher_steps, teacher_batch, distillation, metric, compactness: see `TeacherOptions`.
    """

    input_size: tuple[int, int] = (256, 256)
    patch_sizes: tuple[int, ...] = (33,)
    students: int = 3
    teacher_steps: int = TeacherOptions.steps
    teacher_batch: int = TeacherOptions.batch_size
    distillation: float = TeacherOptions.distillation
    metric: float = TeacherOptions.metric
    compactness: float = TeacherOptions.compactness
    method: str = "stad"
    score: str = MAXIMUM

    def check(self) -> None:
        """Refuse what cannot be built; see `check_patch_sizes`."""
        check_patch_sizes(self.patch_sizes, self.input_size)
        ImageScore(self.score).check()
        if min(self.students, self.teacher_steps, self.teacher_batch) < 1:
            raise StpmError("got fewer than one student, teacher step or patch; give at least 1.")

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON or `torch.save`."""
        return asdict(self)

    @property
    def teacher_options(self) -> TeacherOptions:
        """How its teachers are trained."""
        return TeacherOptions(
            steps=self.teacher_steps,
            batch_size=self.teacher_batch,
            distillation=self.distillation,
            metric=self.metric,
            compactness=self.compactness,
        )


class Students(nn.Module):
    """M patch networks a scale, and the statistics that make their errors comparable."""

    target_mean: Tensor
    target_deviation: Tensor
    score_mean: Tensor
    score_deviation: Tensor

    def __init__(self, patch_sizes: Sequence[int], count: int) -> None:
        super().__init__()
        self.networks = PatchNetworks([p for p in patch_sizes for _ in range(count)])
        scales = len(patch_sizes)
        for name in ("target", "score"):
            size = DESCRIPTOR_SIZE if name == "target" else 2
            self.register_buffer(f"{name}_mean", torch.zeros(scales, size))
            self.register_buffer(f"{name}_deviation", torch.ones(scales, size))


class Stad(Network):
    """A patch network a scale as teacher, M students beside each."""

    networks = ("teacher", "student.networks")
    teacher: PatchNetworks
    student: Students

    def __init__(self, config: StadConfig, teacher: PatchNetworks) -> None:
        students = Students(config.patch_sizes, config.students)
        super().__init__(teacher, students, IMAGENET_MEAN, IMAGENET_STD)
        self.config = config

    @property
    def input_size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.config.input_size

    def score(
        self,
        features: Sequence[Sequence[Tensor]],
        upsample: Upsample,  # noqa: ARG002, the maps have the input's size
    ) -> tuple[Tensor, Tensor]:
        """Add both standardised errors, average the scales, and score the map."""
        targets, students = features
        count = self.config.students
        maps = []
        for scale, target in enumerate(targets):
            errors = self.errors(scale, target, students[scale * count : (scale + 1) * count])
            mean = self.student.score_mean[scale].view(1, 2, 1, 1)
            deviation = self.student.score_deviation[scale].view(1, 2, 1, 1)
            maps.append(((errors - mean) / deviation).sum(dim=1))
        combined = torch.stack(maps).mean(dim=0)
        return combined, ImageScore(self.config.score).of(combined)

    def errors(self, scale: int, target: Tensor, students: Sequence[Tensor]) -> Tensor:
        """Compute the regression error e and the predictive uncertainty v of each pixel.

        v is the mean squared distance of the students to their mean, which equals the paper's
        difference of two squared lengths and loses no digits to it.

        Args:
            scale: index of the patch size.
            target: float (N,D,H,W), the teacher's descriptors.
            students: M of the same shape.

        Returns:
            float32 (N,2,H,W): e, then v.
        """
        outputs = torch.stack([output.float() for output in students])
        mean = outputs.mean(dim=0)
        error = (mean - self.normalised(scale, target)).square().sum(dim=1)
        uncertainty = (outputs - mean).square().sum(dim=2).mean(dim=0)
        return torch.stack([error, uncertainty], dim=1)

    def normalised(self, scale: int, target: Tensor) -> Tensor:
        """Normalise the teacher's descriptors (N,D,H,W) by component, in FP32."""
        mean = self.student.target_mean[scale].view(1, -1, 1, 1)
        return (target.float() - mean) / self.student.target_deviation[scale].view(1, -1, 1, 1)
