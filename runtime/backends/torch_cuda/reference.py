"""What the fused operations compute, with torch's own functions: the reference of the kernels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

Tables = tuple[Tensor, Tensor, Tensor, Tensor]
"""A linear upsampling whose every output is the weighted sum of two neighbours an axis.

For rows, then columns: the first neighbour's index int32 (n,), and both weights float32 (2,n).
"""


@dataclass(frozen=True)
class Layout:
    """How a normalised image lies in memory: blocks of pixels as channels, four channels a pixel.

    A convolution of stride s over an image is one of stride 1 over blocks of s x s pixels, whose
    channels are many enough for tensor cores.

    Attributes:
        block: side of a block in pixels.
        top, left: zero pixels before the image.
        rows, columns: of blocks; what is beyond the image is zero.
    """

    block: int
    top: int
    left: int
    rows: int
    columns: int


def neighbours(matrix: Tensor) -> tuple[Tensor, Tensor] | None:
    """Write a matrix (outputs, inputs) as indices and weights; None if a row has other entries.

    Returns:
        The first neighbour's index int32 (n,), and the weights float32 (2,n) of it and the next.
    """
    first = (matrix != 0).int().argmax(dim=1)
    second = (first + 1).clamp_max(matrix.shape[1] - 1)
    weights = torch.stack([matrix.gather(1, i[:, None])[:, 0] for i in (first, second)])
    weights[1, first == second] = 0
    rebuilt = torch.zeros_like(matrix)
    rebuilt.scatter_add_(1, first[:, None], weights[0][:, None])
    rebuilt.scatter_add_(1, second[:, None], weights[1][:, None])
    return (first.int(), weights) if torch.equal(rebuilt, matrix) else None


def normalise(
    images: Tensor, mean: Tensor, std: Tensor, dtype: torch.dtype, layout: Layout
) -> Tensor:
    """Normalise grey levels.

    Args:
        images: uint8 or float32 (N,H,W,3).
        mean, std: float32 (3,), in grey levels.
        dtype: of the result.
        layout: of the result.

    Returns:
        (N,C,rows,columns), channels last in memory; channel (y * block + x) * 4 + c is colour c of
        pixel (y, x) of a block, and zero for the fourth colour.
    """
    block, count, (height, width) = layout.block, len(images), images.shape[1:3]
    right, bottom = (
        blocks * block - before - side
        for blocks, before, side in (
            (layout.columns, layout.left, width),
            (layout.rows, layout.top, height),
        )
    )
    normalised = ((images.float() - mean) / std).to(dtype)
    framed = F.pad(normalised, (0, 1, layout.left, right, layout.top, bottom))
    blocks = framed.reshape(count, layout.rows, block, layout.columns, block, 4)
    channels = blocks.transpose(2, 3).reshape(count, layout.rows, layout.columns, -1)
    return channels.permute(0, 3, 1, 2)


def max_pool(x: Tensor, kernel: int, stride: int, padding: int, *, ceil_mode: bool) -> Tensor:
    """Take maxima over square windows of (N,C,H,W); NaN where a window holds one."""
    pooled: Tensor = F.max_pool2d(x, kernel, stride, padding, ceil_mode=ceil_mode)
    return pooled


def unit_distance(target: Tensor, student: Tensor, epsilon: float) -> Tensor:
    """Squared distance of the unit feature vectors (N,C,h,w) at each position, in FP32: (N,1,h,w).

    A vector shorter than `epsilon` is divided by that.
    """
    units = [
        features.float()
        / torch.linalg.vector_norm(features.float(), dim=1, keepdim=True).clamp_min(epsilon)
        for features in (target, student)
    ]
    difference: Tensor = units[0] - units[1]
    return (difference * difference).sum(dim=1, keepdim=True)


def upsampled_product(
    levels: Sequence[Tensor], tables: Sequence[Tables], size: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Upsample maps float32 (N,1,h,w), none of them negative, to a size (H,W), and multiply them.

    Returns:
        The product (N,H,W) and its maxima (N,).
    """
    product = torch.ones((len(levels[0]), *size), device=levels[0].device)
    for level, (rows, row_weights, columns, column_weights) in zip(levels, tables, strict=True):
        below, right = (
            (index + 1).clamp_max(level.shape[axis] - 1)
            for index, axis in ((rows, 2), (columns, 3))
        )
        grid = level[:, 0]
        across = grid[:, :, columns] * column_weights[0] + grid[:, :, right] * column_weights[1]
        weights = row_weights[:, :, None]
        product = product * (across[:, rows] * weights[0] + across[:, below] * weights[1])
    return product, product.amax(dim=(1, 2))
