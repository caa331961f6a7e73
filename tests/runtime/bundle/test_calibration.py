"""Thresholds: exact order statistics, the conformal guarantees, and the interval of the rate."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import beta

from stpm.runtime.bundle.calibration import (
    MOST_SCORES,
    Calibration,
    calibrate,
    image_threshold,
    images_needed,
    kept_values,
    rate_of_threshold,
    smallest_false_alarm_rate,
)
from stpm.runtime.errors import BundleError, DataError


def normal_maps(count: int, seed: int = 0, size: tuple[int, int] = (6, 7)) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    level = rng.gamma(2.0, size=(count, 1, 1))
    return (level * rng.gamma(1.0, size=(count, *size))).astype(np.float32)


def maxima(maps: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(maps.max(axis=(1, 2)))


@pytest.mark.parametrize(
    ("rate", "needed"),
    [(0.5, 1), (0.1, 9), (0.05, 19), (0.03, 33), (0.01, 99), (0.001, 999), (1 / 3, 2), (0.9, 1)],
)
def test_images_needed(rate: float, needed: int) -> None:
    assert images_needed(rate) == needed


@settings(deadline=None)
@given(st.integers(1, 100_000))
def test_smallest_rate_needs_exactly_that_many_images(count: int) -> None:
    assert images_needed(smallest_false_alarm_rate(count)) == count


@pytest.mark.parametrize("rate", [1e-12, 1 - 1e-12])
def test_images_needed_at_extreme_rates(rate: float) -> None:
    assert images_needed(rate) == pytest.approx(1 / rate - 1, abs=1.0)


def test_smallest_rate_without_images() -> None:
    with pytest.raises(DataError, match="0 good images"):
        smallest_false_alarm_rate(0)


@pytest.mark.parametrize(
    ("count", "rate", "rank"),
    [
        (99, 0.01, 99),
        (199, 0.01, 198),
        (100, 0.01, 100),
        (19, 0.05, 19),
        (20, 0.1, 19),
        (9, 0.7, 3),
    ],
)
def test_image_threshold_is_the_order_statistic(count: int, rate: float, rank: int) -> None:
    scores = np.random.default_rng(1).permutation(np.arange(1, count + 1)).astype(np.float32)
    maps = np.zeros((count, 2, 2), dtype=np.float32)
    assert calibrate(scores, maps, rate).image_threshold == rank


@pytest.mark.parametrize(("count", "rate", "flagged"), [(9, 0.1, 0), (19, 0.1, 12), (30, 0.1, 25)])
def test_pixel_threshold_is_the_order_statistic(count: int, rate: float, flagged: int) -> None:
    pixels = count * 3 * 4
    pooled = np.random.default_rng(2).permutation(pixels).astype(np.float32)
    maps = pooled.reshape(count, 3, 4)
    assert calibrate(maxima(maps), maps, rate).pixel_threshold == pixels - 1 - flagged


@settings(deadline=None)
@given(st.integers(2, 40), st.integers(0, 10_000), st.floats(0.05, 0.9))
def test_guarantees_hold_when_each_image_is_left_out_in_turn(
    count: int, seed: int, rate: float
) -> None:
    rate = max(rate, smallest_false_alarm_rate(count))
    maps = normal_maps(count + 1, seed, size=(4, 5))
    scores = maxima(maps)
    alarms, shares = 0, 0.0
    for i in range(count + 1):
        kept = np.arange(count + 1) != i
        calibration = calibrate(scores[kept], maps[kept], rate)
        alarms += int(scores[i] > calibration.image_threshold)
        shares += float(np.mean(maps[i] > calibration.pixel_threshold))
    assert alarms <= rate * (count + 1) + 1e-9
    assert shares <= rate * (count + 1) + 1e-9


@settings(deadline=None)
@given(st.integers(1, 60), st.integers(0, 10_000), st.floats(0.01, 0.99), st.booleans())
def test_pixel_threshold_is_at_most_the_image_threshold(
    count: int, seed: int, rate: float, ties: bool
) -> None:
    rate = max(rate, smallest_false_alarm_rate(count))
    maps = normal_maps(count, seed)
    if ties:
        maps = np.round(maps)
    calibration = calibrate(maxima(maps), maps, rate)
    assert calibration.pixel_threshold <= calibration.image_threshold


@pytest.mark.parametrize(
    ("count", "rate"), [(99, 0.01), (209, 0.05), (20, 0.2), (5, 0.5), (1, 0.5)]
)
def test_interval_is_that_of_the_beta_law(count: int, rate: float) -> None:
    maps = normal_maps(count)
    rank = math.ceil(round((count + 1) * (1 - rate), 6))
    expected = beta(count + 1 - rank, rank).ppf([0.025, 0.975])
    interval = calibrate(maxima(maps), maps, rate).false_alarm_interval
    np.testing.assert_allclose(interval, expected, rtol=1e-8)


def test_interval_of_many_images() -> None:
    count = 20_000
    scores = np.arange(count, dtype=np.float32)
    low, high = calibrate(scores, scores.reshape(-1, 1, 1), 0.05).false_alarm_interval
    expected = beta(1000, 19_001).ppf([0.025, 0.975])
    np.testing.assert_allclose((low, high), expected, rtol=1e-7)


def test_input_arrays_are_left_as_they_were() -> None:
    maps = normal_maps(30)
    scores = maxima(maps)
    before = (scores.copy(), maps.copy())
    calibrate(scores, maps, 0.1)
    np.testing.assert_array_equal(scores, before[0])
    np.testing.assert_array_equal(maps, before[1])


def test_thresholds_are_exact_float32_values() -> None:
    maps = normal_maps(30)
    calibration = calibrate(maxima(maps), maps, 0.1)
    assert calibration.image_threshold in maxima(maps)
    assert calibration.pixel_threshold in maps


def test_too_few_images_names_both_remedies() -> None:
    maps = normal_maps(30)
    with pytest.raises(DataError) as caught:
        calibrate(maxima(maps), maps, 0.01)
    message = str(caught.value)
    assert "30 good images" in message
    assert "99 or more" in message
    named = float(message.split("rate of ")[-1].split()[0])
    assert named == pytest.approx(1 / 31, abs=1e-6)
    assert calibrate(maxima(maps), maps, named).image_count == 30


@pytest.mark.parametrize("rate", [0.0, 1.0, -0.1, 1.5, math.nan, math.inf])
def test_rate_outside_the_open_interval(rate: float) -> None:
    maps = normal_maps(30)
    with pytest.raises(DataError, match="above 0 and below 1"):
        calibrate(maxima(maps), maps, rate)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("place", ["score", "map"])
def test_values_that_are_not_finite(bad: float, place: str) -> None:
    maps = normal_maps(30)
    scores = maxima(maps)
    if place == "score":
        scores[3] = bad
    else:
        maps[3, 2, 1] = bad
    with pytest.raises(DataError, match="not finite"):
        calibrate(scores, maps, 0.1)


@pytest.mark.parametrize(
    ("scores", "maps"),
    [((30,), (29, 4, 4)), ((30, 1), (30, 4, 4)), ((30,), (30, 16)), ((0,), (0, 4, 4))],
)
def test_shapes_that_do_not_fit(scores: tuple[int, ...], maps: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match="expected"):
        calibrate(np.zeros(scores, np.float32), np.zeros(maps, np.float32), 0.1)


def valid() -> dict[str, Any]:
    maps = normal_maps(30)
    return calibrate(maxima(maps), maps, 0.1).to_dict()


def test_json_round_trip() -> None:
    maps = normal_maps(30)
    calibration = calibrate(maxima(maps), maps, 0.1)
    assert Calibration.from_dict(json.loads(json.dumps(calibration.to_dict()))) == calibration


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("image_threshold", "0.5"),
        ("image_threshold", None),
        ("image_threshold", True),
        ("image_threshold", math.nan),
        ("pixel_threshold", math.inf),
        ("pixel_threshold", 10**400),
        ("false_alarm_rate", 0),
        ("false_alarm_rate", 1.0),
        ("image_count", 0),
        ("image_count", 30.0),
        ("image_count", True),
        ("false_alarm_interval", 0.1),
        ("false_alarm_interval", [0.1]),
        ("false_alarm_interval", [0.2, 0.1]),
        ("false_alarm_interval", [-0.1, 0.1]),
        ("false_alarm_interval", [0.1, 1.1]),
        ("false_alarm_interval", ["0.1", 0.2]),
    ],
)
def test_bad_values_are_named(name: str, value: object) -> None:
    with pytest.raises(BundleError, match=name):
        Calibration.from_dict(valid() | {name: value})


@pytest.mark.parametrize("values", [None, [], "x", {}, valid() | {"more": 1}, valid() | {3: 1}])
def test_other_fields_are_rejected(values: object) -> None:
    with pytest.raises(BundleError, match="expected"):
        Calibration.from_dict(values)


def test_missing_field_is_rejected() -> None:
    values = valid()
    del values["image_count"]
    with pytest.raises(BundleError, match="expected"):
        Calibration.from_dict(values)


def test_kept_scores_are_those_of_the_images() -> None:
    maps = normal_maps(30)
    kept = calibrate(maxima(maps), maps, 0.1).scores
    assert kept == tuple(sorted(maxima(maps).tolist()))
    many = np.random.default_rng(3).random(5000, np.float32)
    kept = kept_values(many, MOST_SCORES)
    assert len(kept) == MOST_SCORES
    assert (kept[0], kept[-1]) == (many.min(), many.max())
    for share in (0.1, 0.5, 0.99):
        assert np.quantile(kept, share) == pytest.approx(np.quantile(many, share), abs=1e-3)


@settings(deadline=None)
@given(st.integers(1, 200), st.integers(1, 99))
def test_a_threshold_keeps_the_rate_it_was_made_for(count: int, percent: int) -> None:
    """The rate that the scores give the threshold of a rate is that rate or lower."""
    rate = percent / 100
    if count < images_needed(rate):
        return
    scores = np.random.default_rng(count).permutation(count).astype(np.float32)
    threshold = image_threshold(scores, rate)
    assert rate_of_threshold(scores.tolist(), threshold) <= rate + 1e-12
    assert rate_of_threshold(scores.tolist(), threshold - 1) > rate - 1e-12 or threshold == 0


def test_warn_threshold_is_that_of_its_rate() -> None:
    maps = normal_maps(99)
    found = calibrate(maxima(maps), maps, 0.01, 0.1)
    assert found.warn_threshold == calibrate(maxima(maps), maps, 0.1).image_threshold
    assert found.warn_threshold < found.image_threshold
    assert Calibration.from_dict(json.loads(json.dumps(found.to_dict()))) == found
