"""The n-th highest value of all maps is that of sorting them."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from stpm.runtime.bundle.quantile import nth_highest

FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)


@settings(deadline=None)
@given(arrays(np.float32, (3, 2, 5), elements=FINITE), st.integers(0, 29))
def test_the_nth_highest_is_that_of_sorting(maps: np.ndarray, rank: int) -> None:
    assert nth_highest(maps, rank) == np.sort(maps, axis=None)[::-1][rank]


def test_the_nth_highest_of_many_equal_values() -> None:
    maps = np.random.default_rng(0).integers(0, 4, (5, 20, 30)).astype(np.float32)
    ordered = np.sort(maps, axis=None)[::-1]
    for rank in range(0, maps.size, 97):
        assert nth_highest(maps, rank) == ordered[rank]
