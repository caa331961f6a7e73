"""STAD, "Uninformed Students" (arXiv 1911.02357): students imitate a teacher's descriptors.

Compared with denguir/student-teacher-anomaly-detection (commit fc279ef), which has the same
targets, e, v, standardisation and mean over scales, and LuyaooChen/uninformed-students-pytorch
(commit 3c5661e), which takes the root of e.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from stpm.runtime.errors import StpmError
from stpm.train.backbones import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    StateDict,
    load_state,
    state_hash,
)
from stpm.train.datasets import list_images
from stpm.train.fit import EpochRecord, FitOptions, Stopwatch
from stpm.train.methods import Network, TeacherSource, Upsample
from stpm.train.patch_networks import DESCRIPTOR_SIZE, PatchNetworks, check_patch_sizes
from stpm.train.run_state import OptimisedRunState
from stpm.train.stad_teacher import TeacherOptions, teacher_of

TEACHER_FOLDER = Path("stad_teachers")
SMALLEST_DEVIATION = 1e-6
"""Keeps components and scores that never vary from being divided by zero."""


@dataclass(frozen=True)
class StadConfig:
    """What fixes teacher and students; see `Config`.

    Attributes:
        input_size: (height, width) in pixels of the image that the networks see.
        patch_sizes: receptive fields p, one for one scale or several to be averaged.
        students: M, a scale.
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

    def check(self) -> None:
        """Refuse what cannot be built; see `check_patch_sizes`."""
        check_patch_sizes(self.patch_sizes, self.input_size)
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
        """Add both standardised errors, average the scales, and take the maximum of the map."""
        targets, students = features
        count = self.config.students
        maps = []
        for scale, target in enumerate(targets):
            errors = self.errors(scale, target, students[scale * count : (scale + 1) * count])
            mean = self.student.score_mean[scale].view(1, 2, 1, 1)
            deviation = self.student.score_deviation[scale].view(1, 2, 1, 1)
            maps.append(((errors - mean) / deviation).sum(dim=1))
        combined = torch.stack(maps).mean(dim=0)
        return combined, combined.amax(dim=(1, 2))

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


class StadTrainer(OptimisedRunState):
    """Trains all students at once, an image at a time; see `Trainer`.

    A step sees every `stride`-th pixel, from another corner each time, and so do the statistics:
    neighbouring patches are nearly the same, and these share all products. Public reimplementations
    take every pixel.
    """

    def __init__(
        self,
        network: Stad,
        train_images: NDArray[np.uint8],
        held_out_images: NDArray[np.uint8],
        options: FitOptions,
    ) -> None:
        super().__init__(options, network.student)
        self.network: Stad = network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._train, self._held_out = map(torch.from_numpy, (train_images, held_out_images))

    def make_optimiser(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """Return Adam with the options' rates."""
        options = self.options
        return torch.optim.Adam(
            parameters, lr=options.learning_rate, weight_decay=options.weight_decay
        )

    @property
    def image_counts(self) -> tuple[int, int]:
        """Of images to train on, and held out."""
        return len(self._train), len(self._held_out)

    @torch.no_grad()
    def prepare(self, on_images: Callable[[int], None]) -> str:
        """Measure the mean and deviation of the teacher's descriptors; returns a line about it."""
        scales = len(self.network.config.patch_sizes)
        moments = _Moments(scales, DESCRIPTOR_SIZE)
        for image in self._train:
            for scale, target in enumerate(self.network.teacher.lattice(self._pixels(image[None]))):
                moments.add(scale, target)
            on_images(1)
        students = self.network.student
        students.target_mean[:], students.target_deviation[:] = moments.result()
        return f"descriptors normalised over {len(self._train)} images, {scales} scales"

    def run_epoch(self, on_step: Callable[[int], None] = lambda _: None) -> EpochRecord:
        """Train one epoch, measure e and v on the held-out images, remember the best students.

        The paper takes the students of the last epoch; here those of the lowest held-out error.

        Raises:
            StpmError: a loss is not finite.
        """
        watch, start = Stopwatch(), time.perf_counter()
        rng = np.random.default_rng((self.options.seed, self.epoch))
        order = torch.from_numpy(rng.permutation(len(self._train)))
        total = 0.0
        for index in torch.split(order, self.options.batch_size):
            corner = rng.integers(self.network.input_size).tolist()
            value = self._step(self._pixels(self._train[index]), corner, watch)
            self.check_finite("loss", value)
            total += value * len(index)
            on_step(len(index))
        with watch.stage("held_out"):
            held_out = self._standardise()
        is_best = self.finish_epoch(held_out, self.student)
        seconds = time.perf_counter() - start
        loss = total / len(self._train)
        return EpochRecord(self.epoch, loss, held_out, is_best, seconds, dict(watch.seconds))

    def _step(self, x: Tensor, corner: Sequence[int], watch: Stopwatch) -> float:
        with watch.stage("teacher"), torch.no_grad():
            targets = [
                self.network.normalised(scale, target)
                for scale, target in enumerate(self.network.teacher.lattice(x, corner))
            ]
        self.optimiser.zero_grad(set_to_none=True)
        count, total = self.network.config.students, 0.0
        for i, student in enumerate(self.network.student.networks.each()):
            with watch.stage("forward"):
                with self.autocast():
                    output = student.lattice(x, corner)
                loss = (output.float() - targets[i // count]).square().sum(dim=1).mean()
            # One at a time: the students share nothing, and their activations are large.
            with watch.stage("backward"):
                self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
        with watch.stage("optimiser"):
            self.scaler.step(self.optimiser)
            self.scaler.update()
        return total / len(self.network.student.networks.members)

    @torch.no_grad()
    def _standardise(self) -> float:
        """Measure mean and deviation of e and v on the held-out images; returns the mean of e."""
        network, count = self.network, self.network.config.students
        moments = _Moments(len(network.config.patch_sizes), 2)
        for image in self._held_out:
            x = self._pixels(image[None])
            with self.autocast():
                students = network.student.networks.lattice(x)
            for scale, target in enumerate(network.teacher.lattice(x)):
                outputs = students[scale * count : (scale + 1) * count]
                moments.add(scale, network.errors(scale, target, outputs))
        network.student.score_mean[:], network.student.score_deviation[:] = moments.result()
        return float(network.student.score_mean[:, 0].mean())

    def _pixels(self, images: Tensor) -> Tensor:
        normalised: Tensor = self.network.normalise(images.to(self.device))
        return normalised


class _Moments:
    """Means and deviations over the pixels of many images, summed up in FP64."""

    def __init__(self, rows: int, size: int) -> None:
        self._count = [0] * rows
        self._sums = np.zeros((2, rows, size))

    def add(self, row: int, values: Tensor) -> None:
        """Add values (N,size,H,W) to a row."""
        flat = values.double().transpose(0, 1).flatten(1)
        self._count[row] += flat.shape[1]
        self._sums[:, row] += torch.stack([flat.sum(1), flat.square().sum(1)]).cpu().numpy()

    def result(self) -> tuple[Tensor, Tensor]:
        """Return mean and deviation, float32 (rows,size)."""
        mean, square = self._sums / np.array(self._count)[:, None]
        deviation = np.sqrt(np.maximum(square - mean**2, SMALLEST_DEVIATION**2))
        return torch.from_numpy(mean).float(), torch.from_numpy(deviation).float()


class StadMethod:
    """See `stpm.train.methods.Method`."""

    config = StadConfig
    options = FitOptions(epochs=100, batch_size=1, learning_rate=1e-4, weight_decay=1e-5)

    def blank(
        self,
        config: StadConfig,
        options: FitOptions,
        source: TeacherSource,
        images: Sequence[Path],
    ) -> tuple[Stad, dict[str, str]]:
        """Put random students beside the teachers that are kept, or trained now."""
        teacher = PatchNetworks(config.patch_sizes)
        names = []
        for i, patch_size in enumerate(config.patch_sizes):
            teacher.members[i], name = teacher_of(
                patch_size,
                config.teacher_options,
                weights=source.weights,
                images=list_images(source.images) if source.images else images,
                folder=source.folder or TEACHER_FOLDER,
                fit=options,
            )
            names.append(name)
        with torch.random.fork_rng():
            torch.manual_seed(options.seed)
            network = Stad(config, teacher)
        return network, {"source": ", ".join(names), "sha256": state_hash(teacher.state_dict())}

    def network(self, config: StadConfig, teacher: StateDict, student: StateDict) -> Stad:
        """Build teacher and students with these weights."""
        built = PatchNetworks(config.patch_sizes)
        load_state(built, teacher, "the checkpoint's teacher")
        network = Stad(config, built)
        load_state(network.student, student, "the checkpoint's students")
        return network

    def trainer(
        self,
        network: Stad,
        train_images: NDArray[np.uint8],
        held_out_images: NDArray[np.uint8],
        options: FitOptions,
    ) -> StadTrainer:
        """Train the students as published."""
        return StadTrainer(network, train_images, held_out_images, options)


METHOD = StadMethod()
