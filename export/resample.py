"""Resizing as products with constant matrices, so that every engine computes the same thing."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

PILLOW_PRECISION_BITS = 22
"""Pillow rounds its weights to multiples of 2^-22 for 8-bit images; float32 holds them exactly."""
BLOCK_ROWS = 16
"""Rows of a resizing matrix that are multiplied together: fewer compute fewer zeros."""


def antialias_matrix(size: int, target: int) -> NDArray[np.float32]:
    """Return Pillow's antialiased bilinear weights along one axis.

    Args:
        size: pixels of the input.
        target: pixels of the output.

    Returns:
        float32 (target,size); floor(matrix @ pixels + 1/2) are Pillow's own grey levels.

    Source: `precompute_coeffs` and `normalize_coeffs_8bpc` in Pillow's src/libImaging/Resample.c.
    """
    scale = size / target
    support = max(scale, 1.0)
    matrix = np.zeros((target, size))
    for row in range(target):
        centre = (row + 0.5) * scale
        first = max(int(centre - support + 0.5), 0)
        last = min(int(centre + support + 0.5), size)
        distance = (np.arange(first, last) - centre + 0.5) / support
        weights = np.maximum(1.0 - np.abs(distance), 0.0)
        matrix[row, first:last] = weights / weights.sum()
    unit = 1 << PILLOW_PRECISION_BITS
    return (np.floor(matrix * unit + 0.5) / unit).astype(np.float32)


def bilinear_matrix(size: int, target: int) -> NDArray[np.float32]:
    """Return the weights of bilinear interpolation along one axis, half-pixel centres.

    Args:
        size: values of the input.
        target: values of the output.

    Returns:
        float32 (target,size), equal to torch's `interpolate(mode="bilinear", align_corners=False)`.
    """
    matrix = np.zeros((target, size))
    for row in range(target):
        position = max((row + 0.5) * size / target - 0.5, 0.0)
        low = min(math.floor(position), size - 1)
        high = min(low + 1, size - 1)
        matrix[row, low] += 1.0 - (position - low)
        matrix[row, high] += position - low
    return matrix.astype(np.float32)


def blocks_of(matrix: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Cut a matrix whose rows are zero but for a few neighbours into blocks of rows.

    Args:
        matrix: float32 (target,size).

    Returns:
        The blocks' weights one below the other, float32 (target,length), and the columns of
        `matrix` that each block takes them from, int64 (blocks,length); what they leave out is
        zero. Blocks have at least `BLOCK_ROWS` rows, and as many each as divide `target`.
    """
    target, size = matrix.shape
    most = max(target // BLOCK_ROWS, 1)
    count = next(count for count in range(most, 0, -1) if target % count == 0)
    blocks = matrix.reshape(count, -1, size)
    used = [np.flatnonzero(block.any(axis=0)) for block in blocks]
    length = max(columns[-1] - columns[0] + 1 for columns in used)
    first = np.array([min(columns[0], size - length) for columns in used])
    index = first[:, None] + np.arange(length)
    weights = np.concatenate([block[:, i] for block, i in zip(blocks, index, strict=True)])
    return weights, index
