"""STAD's patch networks: one descriptor for a p x p patch, or for every pixel in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stpm.runtime.errors import CheckpointError

DESCRIPTOR_SIZE = 128
LEAKY_SLOPE = 5e-3


@dataclass(frozen=True)
class Layer:
    """A convolution without padding, and whether a 2x2 max-pooling of stride 2 follows."""

    kernel: int
    channels: int
    pool: bool = False


ARCHITECTURES = {
    17: (Layer(6, 128), Layer(5, 256), Layer(5, 256), Layer(4, DESCRIPTOR_SIZE)),
    33: (Layer(6, 128, True), Layer(5, 256, True), Layer(2, 256), Layer(4, DESCRIPTOR_SIZE)),
    65: (
        *(Layer(6, 128, True), Layer(5, 128, True), Layer(6, 128, True)),
        *(Layer(4, 256), Layer(1, DESCRIPTOR_SIZE)),
    ),
}
"""By receptive field p, in pixels.

The paper's tables print kernels that do not give p, or give it only by leaving a row and a column
out before a pooling. Here the first kernel is 6 in all three (printed 5, 3 and 5), and the third of
p = 65 is 6 (printed 5): then p pixels become one, and none is lost. The last layer of p = 65 is
1x1, as its printed sizes say. denguir/student-teacher-anomaly-detection (commit fc279ef) has a
first kernel of 6 for p = 17 alone, and loses a row and a column in the other two.
"""


class PatchNetwork(nn.Module):
    """A network with receptive field p, for patches and for whole images with the same weights.

    Leaky ReLUs stand between the convolutions and not after the last one, as in
    LuyaooChen/uninformed-students-pytorch (commit 3c5661e): students regress descriptors of mean
    zero, which a rectified output could not reach.
    """

    def __init__(self, patch_size: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.layers = ARCHITECTURES[patch_size]
        channels = [3, *(layer.channels for layer in self.layers)]
        self.convolutions = nn.ModuleList(
            nn.Conv2d(before, layer.channels, layer.kernel)
            for before, layer in zip(channels, self.layers, strict=False)
        )

    def _steps(self) -> list[tuple[Layer, nn.Conv2d, bool]]:
        """Return each layer with its convolution and whether it is the last."""
        last = len(self.layers) - 1
        pairs = zip(self.layers, self.convolutions, strict=True)
        return [(layer, cast(nn.Conv2d, c), i == last) for i, (layer, c) in enumerate(pairs)]

    @property
    def stride(self) -> int:
        """Pixels from one patch to the next of those that share all products."""
        return 1 << sum(layer.pool for layer in self.layers)

    def _mirrored(self, x: Tensor) -> Tensor:
        border = self.patch_size // 2
        return F.pad(x, (border, border, border, border), mode="reflect")

    def _strided(self, x: Tensor) -> Tensor:
        for layer, convolution, is_last in self._steps():
            x = convolution(x)
            if not is_last:
                x = F.leaky_relu(x, LEAKY_SLOPE)
            if layer.pool:
                x = F.max_pool2d(x, 2)
        return x

    def patches(self, x: Tensor) -> Tensor:
        """Describe patches: float (N,3,p,p), normalised, to (N,DESCRIPTOR_SIZE)."""
        return self._strided(x).flatten(1)

    def lattice(self, x: Tensor, corner: Sequence[int] = (0, 0)) -> Tensor:
        """Describe every `stride`-th pixel, for less than a pixel's share of `forward`.

        Args:
            x: as for `forward`.
            corner: row and column of the first pixel, taken modulo the stride.

        Returns:
            float (N,DESCRIPTOR_SIZE,h,w): rows and columns of `forward`'s, from corner by stride.
        """
        row, column = (at % self.stride for at in corner)
        return self._strided(self._mirrored(x)[..., row:, column:])

    def forward(self, x: Tensor) -> Tensor:
        """Describe the patch around every pixel; the image is mirrored at its borders.

        What a stride of 2 skips, the following layers' dilation skips instead: the same products as
        patch by patch, each computed once.

        Args:
            x: float (N,3,H,W), normalised; H and W above p / 2.

        Returns:
            float (N,DESCRIPTOR_SIZE,H,W).

        Source: Bailer et al., Fast Dense Feature Extraction with CNNs that have Pooling or Striding
        Layers, BMVC 2017; dilations in place of its unwarping of interleaved outputs.
        """
        x = self._mirrored(x)
        dilation = 1
        for layer, convolution, is_last in self._steps():
            x = F.conv2d(x, convolution.weight, convolution.bias, dilation=dilation)
            if not is_last:
                x = F.leaky_relu(x, LEAKY_SLOPE)
            if layer.pool:
                # Slices: TensorRT has no dilated pooling.
                x = torch.maximum(x[:, :, :-dilation], x[:, :, dilation:])
                x = torch.maximum(x[..., :-dilation], x[..., dilation:])
                dilation *= 2
        return x


class PatchNetworks(nn.Module):
    """Several patch networks side by side, in the order of `patch_sizes`."""

    def __init__(self, patch_sizes: Sequence[int]) -> None:
        super().__init__()
        self.members = nn.ModuleList(map(PatchNetwork, patch_sizes))

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return each one's descriptors float (N,DESCRIPTOR_SIZE,H,W) of images (N,3,H,W)."""
        return [member(x) for member in self.each()]

    def lattice(self, x: Tensor, corner: Sequence[int] = (0, 0)) -> list[Tensor]:
        """Return each one's `PatchNetwork.lattice`."""
        return [member.lattice(x, corner) for member in self.each()]

    def each(self) -> list[PatchNetwork]:
        """Return the networks."""
        return [cast(PatchNetwork, member) for member in self.members]


def check_patch_sizes(patch_sizes: Sequence[int], input_size: tuple[int, int]) -> None:
    """Refuse what cannot be built.

    Raises:
        CheckpointError: a size is unknown or given twice, or too large for the images.
    """
    known = set(patch_sizes) <= set(ARCHITECTURES)
    if not patch_sizes or not known or len(set(patch_sizes)) != len(patch_sizes):
        raise CheckpointError(
            f"got patch sizes {','.join(map(str, patch_sizes))}, expected one or more of "
            f"{','.join(map(str, ARCHITECTURES))}, each once; change patch-sizes."
        )
    if min(input_size) <= max(patch_sizes) // 2:
        raise CheckpointError(
            f"got an input size of {input_size[0]}x{input_size[1]} for patches of "
            f"{max(patch_sizes)} pixels, expected sides of more than half the patch size; "
            "enlarge --input-size."
        )
