"""A network for grey cameras: it takes one plane, and scores it as three equal ones."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor, nn

from stpm.runtime.images.preprocess import RGB, with_channels
from stpm.train.datasets import read_image
from stpm.train.methods import Network, Normalise

INSIDE = 64
"""Level of the second plane. At 255 its weights, in INT8, would have few steps left."""


class GreyNormalise(Normalise):
    """Brings grey levels (N,H,W,1) to two planes: the image, and 1 wherever the image is.

    Convolutions pad both with zeros, as they pad three normalised channels.
    """

    share: Tensor
    inside: Tensor

    def __init__(self, mean: float, std: float) -> None:
        """Take the mean and standard deviation of the image, in grey levels."""
        super().__init__((mean, 0.0), (std, float(INSIDE)))
        for name, values in (("share", (1.0, 0.0)), ("inside", (0.0, float(INSIDE)))):
            self.register_buffer(name, torch.tensor(values), persistent=False)

    def levels(self, images: Tensor) -> Tensor:
        """Put the second plane beside the image: float32 (N,H,W,2)."""
        return images.float() * self.share + self.inside

    def forward(self, images: Tensor) -> Tensor:
        """Normalise to float32 (N,2,H,W)."""
        # One plane is brought forward for nothing.
        scale = (self.share / self.std).view(2, 1, 1)
        shift = ((self.inside - self.mean) / self.std).view(2, 1, 1)
        return images.float().permute(0, 3, 1, 2) * scale + shift


def grey_network(model: Network) -> Network:
    """Return a copy that takes images uint8 (N,H,W,1).

    A channel c of an image g is normalised to (g - m_c) / s_c = a_c (g - m) / s + b_c, so that
    three planes are linear in two: the image, normalised with any m and s, and 1. The convolutions
    that take them are multiplied by a and b. Padding is zero in both; a bias in the place of b
    would be added there, too.

    Args:
        model: the network; not changed.
    """
    grey = copy.deepcopy(model)
    normalise = grey.normalise
    mean, std = normalise.mean.double(), normalise.std.double()
    mixed = torch.stack([std.mean() / std, (mean.mean() - mean) / std])
    for network in map(grey.get_submodule, grey.networks):
        for conv in network.modules():
            if isinstance(conv, nn.Conv2d) and conv.in_channels == RGB:
                weight = torch.einsum("pc,ocij->opij", mixed, conv.weight.detach().double())
                conv.weight = nn.Parameter(weight.to(conv.weight.dtype))
                conv.in_channels = len(mixed)
    grey.normalise = GreyNormalise(float(mean.mean()), float(std.mean()))
    grey.channels = 1
    return grey


def check_grey(paths: Iterable[Path], bit_depth: int) -> None:
    """Refuse images that are not grey; DataError names the first."""
    for path in dict.fromkeys(paths):
        with_channels(read_image(path, bit_depth), 1, str(path))
