"""All that is particular to STPM, Student-Teacher Feature Pyramid Matching (arXiv 2103.04257)."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from torch import Tensor

from stpm.runtime.errors import CheckpointError
from stpm.runtime.output.map_score import MAXIMUM
from stpm.train.backbones import BACKBONES, OUTPUTS, FeaturePyramid, check_levels, pyramid
from stpm.train.methods.contract import Network, Upsample
from stpm.train.methods.distances import feature_distances
from stpm.train.methods.image_score import ImageScore


@dataclass(frozen=True)
class ModelConfig:
    """What fixes the network: everything but its weights.

    Attributes:
        backbone: a key of `BACKBONES`, for teacher and student alike.
        levels: the pyramid levels that are matched, but for those that are shared.
        input_size: (height, width) in pixels of the image that the networks see.
        method: always "stpm".
        score: see `ImageScore`.
        mean, std: the input's normalisation by channel in grey levels; empty is the backbone's.
        share_to: "conv1" or a level: the student starts from the teacher's features there, and has
            no layers of its own up to it; empty for a whole student, as published.
    """

    backbone: str = "resnet18"
    levels: tuple[str, ...] = ("layer1", "layer2", "layer3")
    input_size: tuple[int, int] = (256, 256)
    method: str = "stpm"
    score: str = MAXIMUM
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    share_to: str = ""

    @property
    def matched(self) -> tuple[str, ...]:
        """The levels that are compared; in shared ones teacher and student are the same."""
        return tuple(level for level in self.levels if OUTPUTS.index(level) > self._shared)

    @property
    def taps(self) -> tuple[str, ...]:
        """What the teacher gives: the features that the student starts from, and `matched`."""
        return (self.share_to, *self.matched) if self.share_to else self.matched

    @property
    def _shared(self) -> int:
        return OUTPUTS.index(self.share_to) if self.share_to else -1

    def check(self) -> None:
        """Refuse what cannot be built; see `check_levels`."""
        check_levels(self.backbone, self.levels)
        if self.share_to and self.share_to not in OUTPUTS:
            able = OUTPUTS[: OUTPUTS.index(self.levels[-1])]
            raise CheckpointError(
                f"got {self.share_to!r} to share to, expected one of {', '.join(able)}; change "
                "--share-to."
            )
        if not self.matched:
            raise CheckpointError(
                f"got levels {','.join(self.levels)} that are all shared up to {self.share_to}, "
                "expected one above it, where teacher and student can differ; change --levels or "
                "--share-to."
            )
        ImageScore(self.score).check()
        if {len(self.mean), len(self.std)} not in ({0}, {3}) or 0 in self.std:
            raise CheckpointError(
                f"got a mean of {self.mean} and a standard deviation of {self.std}, expected "
                "three numbers each, no standard deviation zero."
            )

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON or `torch.save`, without what is empty."""
        return {name: value for name, value in asdict(self).items() if value not in ((), "")}


class Stpm(Network):
    """A frozen teacher, a student of the same architecture, and the scoring between them."""

    teacher: FeaturePyramid
    student: FeaturePyramid

    def __init__(self, config: ModelConfig, teacher: FeaturePyramid) -> None:
        spec = BACKBONES[config.backbone]
        student = pyramid(config.backbone, config.matched, after=config.share_to)
        super().__init__(teacher, student, config.mean or spec.mean, config.std or spec.std)
        self.config = config

    @property
    def input_size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.config.input_size

    def at_size(self, size: tuple[int, int]) -> Stpm:
        """Return this network for images of another (height, width), with the same weights."""
        other = copy.deepcopy(self, {id(shared): shared for shared in (self.teacher, self.student)})
        other.config = replace(self.config, input_size=size)
        other.normalise = self.normalise.at_size(size)
        return other

    def features(self, x: Tensor) -> list[Sequence[Tensor]]:
        """See `Network.features`; the student may start from the teacher's."""
        if not self.config.share_to:
            return super().features(x)
        shared, *levels = self.teacher(x)
        return [levels, self.student(shared)]

    def distances(self, features: Sequence[Sequence[Tensor]]) -> list[Tensor]:
        """Compare the levels' features of teacher and student, float32 (N,1,h,w) a level."""
        return feature_distances(*features)

    def score(
        self, features: Sequence[Sequence[Tensor]], upsample: Upsample
    ) -> tuple[Tensor, Tensor]:
        """Score the levels' features of teacher and student; see `Network.score`."""
        maps = anomaly_map(self.distances(features), upsample)
        return maps, ImageScore(self.config.score).of(maps)


def anomaly_map(distances: Sequence[Tensor], upsample: Upsample) -> Tensor:
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
