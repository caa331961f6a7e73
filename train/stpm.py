"""All that is particular to STPM, Student-Teacher Feature Pyramid Matching (arXiv 2103.04257)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stpm.train.backbones import BACKBONES, FeaturePyramid, pyramid

NORM_EPSILON = 1e-12
"""Lower bound of a feature vector's length: zero features give distance zero, not NaN, in FP32."""


@dataclass(frozen=True)
class ModelConfig:
    """What fixes the network: everything but its weights.

    Attributes:
        backbone: a key of `BACKBONES`, for teacher and student alike.
        levels: the pyramid levels that are matched.
        input_size: (height, width) in pixels of the image that the networks see.
        method: always "stpm".
    """

    backbone: str = "resnet18"
    levels: tuple[str, ...] = ("layer1", "layer2", "layer3")
    input_size: tuple[int, int] = (256, 256)
    method: str = "stpm"

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON or `torch.save`."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ModelConfig:
        """Inverse of `to_dict`, also after JSON has turned tuples into lists."""
        return cls(
            backbone=str(values["backbone"]),
            levels=tuple(values["levels"]),
            input_size=(int(values["input_size"][0]), int(values["input_size"][1])),
            method=str(values["method"]),
        )


class Stpm(nn.Module):
    """A frozen teacher, a student of the same architecture, and the scoring between them."""

    mean: Tensor
    std: Tensor

    def __init__(self, config: ModelConfig, teacher: FeaturePyramid) -> None:
        super().__init__()
        self.config = config
        self.teacher = teacher
        self.student = pyramid(config.backbone, config.levels)
        spec = BACKBONES[config.backbone]
        for name, values in (("mean", spec.mean), ("std", spec.std)):
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1), persistent=False)

    def normalise(self, pixels: Tensor) -> Tensor:
        """Bring pixels (N,3,H,W) in grey levels to the input range of the backbone, in FP32."""
        normalised: Tensor = (pixels.float() - self.mean) / self.std
        return normalised

    def level_distances(self, x: Tensor) -> list[Tensor]:
        """Compute each level's map of distances between teacher and student.

        Args:
            x: float (N,3,H,W), normalised, in the precision of the networks.

        Returns:
            float32 (N,1,h_l,w_l) a level, in [0, 4].
        """
        return feature_distances(self.teacher(x), self.student(x))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Score images; the FP32 reference that every engine is measured against.

        Args:
            images: uint8 (N,H,W,3), RGB, of the config's input size.

        Returns:
            anomaly_map float32 (N,H,W) and pred_score float32 (N,).
        """
        x = self.normalise(images.permute(0, 3, 1, 2))
        maps = anomaly_map(self.level_distances(x), interpolate_to(self.config.input_size))
        return maps, maps.amax(dim=(1, 2))


def unit_features(features: Tensor) -> Tensor:
    """Scale each position's feature vector to length one, in FP32 whatever the networks run in.

    FP16 would lose half the digits of 1 - cos and turn zero vectors into NaN.
    """
    features = features.float()
    # F.normalize does the same, and exports an Expand beside each division.
    length: Tensor = torch.linalg.vector_norm(features, dim=1, keepdim=True)
    return features / length.clamp_min(NORM_EPSILON)


def squared_distance(target: Tensor, student: Tensor) -> Tensor:
    """Compute the squared distance between the unit feature vectors of each position.

    It is 2 (1 - cos), twice the paper's loss of a position (equation 1, whose printed form names
    the teacher twice). The authors' code leaves the paper's factor 1/2 out and so do we, for the
    loss, where it counts together with the learning rate of 0.4, and for the map, where it only
    scales every score by 2 to the number of levels.

    Args:
        target: float (N,C,h,w), the teacher's unit features.
        student: float (N,C,h,w), the student's raw features.

    Returns:
        float32 (N,1,h,w), in [0, 4].
    """
    difference = target.float() - unit_features(student)
    return (difference * difference).sum(dim=1, keepdim=True)


def feature_distances(targets: Sequence[Tensor], students: Sequence[Tensor]) -> list[Tensor]:
    """Compute `squared_distance` a level, float32 (N,1,h,w), from raw features (N,C,h,w)."""
    units = map(unit_features, targets)
    return [squared_distance(t, s) for t, s in zip(units, students, strict=True)]


def matching_loss(targets: Sequence[Tensor], students: Sequence[Tensor]) -> Tensor:
    """Average `squared_distance` over positions and batch, and sum over levels: the training loss.

    Source: equations 2 and 3 with alpha_l = 1, without the factor 1/2 (see `squared_distance`).
    Summing over positions or dividing by the channels, as other ports do, changes the effective
    learning rate by more than ten times.
    """
    losses = [squared_distance(t, s).mean() for t, s in zip(targets, students, strict=True)]
    return torch.stack(losses).sum()


def anomaly_map(distances: Sequence[Tensor], upsample: Callable[[Tensor], Tensor]) -> Tensor:
    """Multiply the upsampled level maps (section 3.3 of the paper).

    Args:
        distances: float32 (N,1,h_l,w_l) a level.
        upsample: brings one of them to (N,1,H,W) bilinearly.

    Returns:
        float32 (N,H,W).
    """
    product = upsample(distances[0])
    for level in distances[1:]:
        product = product * upsample(level)
    return product.squeeze(1)


def interpolate_to(size: tuple[int, int]) -> Callable[[Tensor], Tensor]:
    """Return torch's bilinear upsampling to (height, width), half-pixel centres."""
    return lambda level: F.interpolate(level, size=size, mode="bilinear", align_corners=False)
