"""All that is particular to RD, reverse distillation (Deng and Li, CVPR 2022, arXiv 2201.10703).

The student sees no image: a bottleneck fuses the teacher's levels into a small embedding, and a
decoder, a ResNet turned round, restores the levels from it. What is not like the good images is
lost in the bottleneck, and the decoder does not know how to restore it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stpm.runtime.errors import CheckpointError
from stpm.train.backbones import BACKBONES, FeaturePyramid, check_levels
from stpm.train.methods.contract import Network, Upsample
from stpm.train.methods.distances import feature_distances
from stpm.train.methods.image_score import ImageScore
from stpm.train.methods.smoothing import Smoothing

LEVELS = ("layer1", "layer2", "layer3")
CHANNELS = (64, 128, 256)
"""Of the levels of a ResNet with two convolutions a block."""
EMBEDDING = 512
"""Channels of the embedding."""
BLOCKS = 2
"""Residual blocks a stage, as in ResNet-18."""
SCORE = "top1%"
"""Of an image; published is "max", which finds fewer of the defects that are no small spots."""
SMALLEST_SIDE = 64
"""Pixels of an image whose embedding has 2x2 places: batch norm needs several values."""


@dataclass(frozen=True)
class RdConfig:
    """What fixes the network: everything but its weights.

    Attributes:
        backbone: of the teacher: resnet18 or resnet34, whose levels the decoder restores.
        input_size: (height, width) in pixels of the images, multiples of 32.
        method: always "rd".
        score: see `ImageScore`.
    """

    backbone: str = "resnet18"
    input_size: tuple[int, int] = (256, 256)
    method: str = "rd"
    score: str = SCORE

    def check(self) -> None:
        """Refuse what cannot be built."""
        check_levels(self.backbone, LEVELS)
        ImageScore(self.score).check()
        if self.backbone not in ("resnet18", "resnet34"):
            raise CheckpointError(
                f"got backbone {self.backbone}, expected resnet18 or resnet34 for rd; change "
                "--backbone."
            )
        if min(self.input_size) < SMALLEST_SIDE or any(side % 32 for side in self.input_size):
            height, width = self.input_size
            raise CheckpointError(
                f"got an input size of {height}x{width}, expected multiples of 32, at least "
                f"{SMALLEST_SIDE}, for rd; change --input-size."
            )

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON or `torch.save`."""
        return asdict(self)


class Rd(Network):
    """A frozen teacher, and a student that restores its features from an embedding of them."""

    teacher: FeaturePyramid
    student: Restorer

    def __init__(self, config: RdConfig, teacher: FeaturePyramid) -> None:
        spec = BACKBONES[config.backbone]
        super().__init__(teacher, Restorer(), spec.mean, spec.std)
        self.config = config
        self.smoothing = Smoothing(config.input_size)

    @property
    def input_size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.config.input_size

    def features(self, x: Tensor) -> list[Sequence[Tensor]]:
        """See `Network.features`; the student takes the teacher's."""
        levels = self.teacher(x)
        return [levels, self.student(levels)]

    def score(
        self, features: Sequence[Sequence[Tensor]], upsample: Upsample
    ) -> tuple[Tensor, Tensor]:
        """Score the levels' features of teacher and student; see `Network.score`.

        Source: section 3.4. The authors upsample with aligned corners; here as all methods do.
        """
        low, middle, high = map(upsample, feature_distances(*features))
        # Halved, a squared distance is 1 - cos.
        maps: Tensor = self.smoothing(0.5 * (low + middle + high))
        return maps, ImageScore(self.config.score).of(maps)


class Restorer(nn.Module):
    """The trained part: multi-scale fusion and one-class embedding, then the decoder."""

    def __init__(self) -> None:
        super().__init__()
        low, middle, high = CHANNELS
        self.fuse1 = nn.Sequential(_halved(low, middle), _halved(middle, high))
        self.fuse2 = _halved(middle, high)
        self.embed = _stage(Block(3 * high, EMBEDDING, stride=2), EMBEDDING)
        self.restore3 = _stage(UpBlock(EMBEDDING, high), high)
        self.restore2 = _stage(UpBlock(high, middle), middle)
        self.restore1 = _stage(UpBlock(middle, low), low)

    def forward(self, levels: Sequence[Tensor]) -> list[Tensor]:
        """Restore the teacher's features, float (N,C_l,h_l,w_l) a level, from themselves."""
        low, middle, high = levels
        fused = torch.cat([self.fuse1(low), self.fuse2(middle), high], dim=1)
        restored3 = self.restore3(self.embed(fused))
        restored2 = self.restore2(restored3)
        return [self.restore1(restored2), restored2, restored3]


class Block(nn.Module):
    """A residual block of two 3x3 convolutions, as ResNet-18's."""

    def __init__(self, channels: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.first = _normalised(_conv(channels, outputs, 3, stride))
        self.second = _normalised(_conv(outputs, outputs, 3))
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels != outputs:
            self.shortcut = _normalised(_conv(channels, outputs, 1, stride))

    def forward(self, x: Tensor) -> Tensor:
        """Transform float (N,C,H,W)."""
        return F.relu(self.second(F.relu(self.first(x))) + self.shortcut(x))


class UpBlock(nn.Module):
    """A residual block that doubles height and width, by transposed convolutions of 2x2."""

    def __init__(self, channels: int, outputs: int) -> None:
        super().__init__()
        self.first = _doubled(channels, outputs)
        self.second = _normalised(_conv(outputs, outputs, 3))
        self.shortcut = _doubled(channels, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Transform float (N,C,H,W) to (N,c,2H,2W)."""
        return F.relu(self.second(F.relu(self.first(x))) + self.shortcut(x))


def _conv(channels: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    conv = nn.Conv2d(channels, outputs, kernel, stride, padding=kernel // 2, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return conv


def _normalised(conv: nn.Conv2d) -> nn.Sequential:
    return nn.Sequential(conv, nn.BatchNorm2d(conv.out_channels))


def _halved(channels: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(*_normalised(_conv(channels, outputs, 3, stride=2)), nn.ReLU())


def _doubled(channels: int, outputs: int) -> nn.Sequential:
    """Return a transposed convolution of 2x2, stride 2, and batch norm.

    Each output depends on one place, so it is a 1x1 convolution for each of the four corners, which
    every engine, batch norm folding and INT8 know. Batch norm has statistics a corner.
    """
    return nn.Sequential(*_normalised(_conv(channels, 4 * outputs, 1)), nn.PixelShuffle(2))


def _stage(first: nn.Module, channels: int) -> nn.Sequential:
    return nn.Sequential(first, *(Block(channels, channels) for _ in range(BLOCKS - 1)))
