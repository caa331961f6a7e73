"""The exact quantile of more values than memory holds sorted."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stpm.runtime.bundle.maps import Maps

_PASSES = ((21, 11), (10, 11), (0, 10))
"""Of 32 bits: how many lie below those that a pass settles, and how many it settles."""


def nth_highest(maps: Maps, rank: int) -> float:
    """Return the value that exactly `rank` values of all maps stand before, by falling value.

    Each pass counts the values by some of their bits, written so that they rise as the values do.

    Args:
        maps: finite.
        rank: from 0 to less than the number of values.
    """
    prefix = 0
    for shift, width in _PASSES:
        counts = np.zeros(1 << width, np.int64)
        for one in maps:
            keys = _rising_keys(one) >> np.uint32(shift)
            if prefix:  # no finite value's highest bits are all zero
                keys = keys[keys >> np.uint32(width) == prefix]
            counts += np.bincount(keys & np.uint32(len(counts) - 1), minlength=len(counts))
        before = np.cumsum(counts[::-1])
        place = int(np.searchsorted(before, rank, side="right"))
        rank -= int(before[place - 1]) if place else 0
        prefix = prefix << width | (len(counts) - 1 - place)
    bits = prefix ^ (1 << 31) if prefix >> 31 else prefix ^ 0xFFFFFFFF
    return float(np.uint32(bits).view(np.float32))


def _rising_keys(values: NDArray[np.float32]) -> NDArray[np.uint32]:
    """Return integers in the order of the values (N,)."""
    bits = np.ascontiguousarray(values, np.float32).reshape(-1).view(np.uint32)
    return np.where(bits >> np.uint32(31), ~bits, bits | np.uint32(1 << 31))
