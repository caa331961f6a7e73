"""Parity: the largest relative differences, and what counts as within a tolerance."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from stpm.runtime.bundle.parity import TOLERANCES, Parity, compare

Arrays = NDArray[np.float32]


def maps() -> Arrays:
    """Two maps whose maxima are 4 and 0.5."""
    return np.array([[[1, 2], [4, 3]], [[0.25, 0.5], [0, 0.125]]], np.float32)


def scores() -> Arrays:
    return np.array([4, 0.5], np.float32)


def test_equal_arrays_do_not_differ() -> None:
    assert compare(maps(), scores(), maps(), scores()) == Parity(0.0, 0.0)


def test_maps_differ_relative_to_their_own_maximum() -> None:
    other = maps()
    other[0, 0, 0] += 1
    assert compare(maps(), scores(), other, scores()) == Parity(0.25, 0.0)
    other[1, 1, 0] -= 0.25
    assert compare(maps(), scores(), other, scores()) == Parity(0.5, 0.0)


@pytest.mark.parametrize(("index", "difference", "expected"), [(0, -1, 0.25), (1, 0.25, 0.5)])
def test_scores_differ_relative_to_themselves(
    index: int, difference: float, expected: float
) -> None:
    other = scores()
    other[index] += difference
    assert compare(maps(), scores(), maps(), other) == Parity(0.0, expected)


def test_negative_values_count_by_size() -> None:
    assert compare(-maps(), -scores(), -maps() - 1, -scores() - 1) == Parity(2.0, 2.0)


def test_the_first_arrays_are_the_reference() -> None:
    assert compare(maps(), scores(), 2 * maps(), 2 * scores()) == Parity(1.0, 1.0)
    assert compare(2 * maps(), 2 * scores(), maps(), scores()) == Parity(0.5, 0.5)


def test_blank_maps() -> None:
    blank, nothing = np.zeros((1, 2, 2), np.float32), np.zeros(1, np.float32)
    assert compare(blank, nothing, blank, nothing) == Parity(0.0, 0.0)
    assert not compare(blank, nothing, blank + 1, nothing).holds(1)
    assert not compare(blank, nothing, blank, nothing + 1).holds(1)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", range(4))
def test_values_that_are_not_finite_never_hold(place: int, value: float) -> None:
    arrays = [maps(), scores(), maps(), scores()]
    arrays[place].flat[1] = value
    assert not compare(*arrays).holds(1e9)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_equal_infinities_do_not_hold() -> None:
    infinite = np.full((2, 2, 2), math.inf, np.float32)
    assert not compare(infinite, scores(), infinite, scores()).holds(1)


@pytest.mark.parametrize(
    ("other_maps", "other_scores"),
    [
        (maps()[:1], scores()),
        (maps()[:, None], scores()),
        (maps()[:, :1], scores()),
        (maps(), scores()[:1]),
        (maps(), scores()[:, None]),
    ],
    ids=["fewer maps", "a channel", "smaller maps", "fewer scores", "score columns"],
)
def test_other_shapes_never_hold(other_maps: Arrays, other_scores: Arrays) -> None:
    assert not compare(maps(), scores(), other_maps, other_scores).holds(1e9)


@pytest.mark.parametrize(
    ("parity", "holds"),
    [
        (Parity(0.01, 0.01), True),
        (Parity(0.011, 0.0), False),
        (Parity(0.0, 0.011), False),
        (Parity(math.nan, 0.0), False),
        (Parity(0.0, math.nan), False),
        (Parity(math.inf, 0.0), False),
    ],
)
def test_both_differences_must_be_within_the_tolerance(parity: Parity, holds: bool) -> None:
    assert parity.holds(0.01) is holds


def test_tolerances_grow_with_the_precisions_steps() -> None:
    steps = {"fp32": 2.0**-23, "fp16": 2.0**-10, "bf16": 2.0**-7, "int8": 2.0**-7}
    assert TOLERANCES.keys() == steps.keys()
    assert sorted(steps, key=steps.__getitem__) == sorted(TOLERANCES, key=TOLERANCES.__getitem__)
    assert all(steps[name] < tolerance <= 0.1 for name, tolerance in TOLERANCES.items())
