"""Connected components of a mask."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def label_regions(mask: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Number the 8-connected regions of a mask.

    Args:
        mask: bool (H, W).

    Returns:
        int32 (H, W): 0 outside the mask, then 1, 2, ... in the reading order of the regions' first
        pixels.

    Source: He, Chao & Suzuki, "A run-based two-scan labeling algorithm", IEEE Transactions on
        Image Processing 17(5), 2008; the unions are done for all runs at once.
    """
    height, width = mask.shape
    stride = width + 2
    padded = np.zeros((height, stride), dtype=np.int8)
    padded[:, 1:-1] = mask
    steps = np.diff(padded.ravel())
    starts, ends = np.flatnonzero(steps == 1), np.flatnonzero(steps == -1)
    upper, lower = _touching(starts, ends, stride)
    _, numbers = np.unique(_roots(upper, lower, len(starts)), return_inverse=True)
    labels = np.zeros((height, width), dtype=np.int32)
    labels[mask] = np.repeat(numbers + 1, ends - starts)
    return labels


def _touching(
    starts: NDArray[np.intp], ends: NDArray[np.intp], stride: int
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Pair each run with the runs of the next row that it touches, also by a corner."""
    first = np.searchsorted(ends, starts + stride, side="left")
    last = np.searchsorted(starts, ends + stride, side="right")
    counts = last - first
    upper = np.repeat(np.arange(len(starts)), counts)
    within = np.arange(len(upper)) - np.repeat(np.cumsum(counts) - counts, counts)
    return upper, np.repeat(first, counts) + within


def _roots(upper: NDArray[np.intp], lower: NDArray[np.intp], count: int) -> NDArray[np.intp]:
    """Return for each run the lowest run of its region."""
    parent = np.arange(count)
    while True:
        a, b = parent[upper], parent[lower]
        if np.array_equal(a, b):
            return parent
        np.minimum.at(parent, np.maximum(a, b), np.minimum(a, b))
        # Every run must point at its root again before the next round joins roots.
        while not np.array_equal(parent, parent[parent]):
            parent = parent[parent]
