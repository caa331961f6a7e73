"""Intervals and steadiness against cases with known answers."""

from __future__ import annotations

import numpy as np
import pytest

from stpm.benchmarks.measure.intervals import (
    image_auroc_resamples,
    pixel_intervals,
    quantile_interval,
)
from stpm.benchmarks.measure.timing import paired_ratio, steadiness
from stpm.train.metrics import aupro, auroc


def labelled_maps(seed: int, shift: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ten good and ten defective maps of 24x24 with one square defect each."""
    rng = np.random.default_rng(seed)
    maps = rng.normal(size=(20, 24, 24)).astype(np.float32)
    masks = np.zeros(maps.shape, np.bool_)
    for i in range(10, 20):
        masks[i, 4 : 8 + i // 4, 6 : 4 + i] = True
    maps[masks] += shift
    return masks, maps, np.arange(20) >= 10


def test_resampled_image_auroc_agrees_with_drawing_images_one_by_one() -> None:
    rng = np.random.default_rng(1)
    anomalous = np.arange(40) >= 15
    scores = rng.normal(size=40) + anomalous
    (resampled,) = image_auroc_resamples([scores], anomalous)
    good, bad = np.flatnonzero(~anomalous), np.flatnonzero(anomalous)
    by_hand = []
    for _ in range(1000):
        drawn = np.concatenate([rng.choice(good, len(good)), rng.choice(bad, len(bad))])
        by_hand.append(auroc(anomalous[drawn], scores[drawn]))
    assert resampled.mean() == pytest.approx(np.mean(by_hand), abs=0.01)
    assert resampled.std() == pytest.approx(np.std(by_hand), rel=0.15)


def test_models_are_resampled_on_the_same_draws() -> None:
    rng = np.random.default_rng(2)
    anomalous = np.arange(30) >= 10
    scores = rng.normal(size=30)
    first, second = image_auroc_resamples([scores, 2 * scores + 1], anomalous)
    assert np.array_equal(first, second)


def test_perfect_separation_leaves_no_doubt() -> None:
    anomalous = np.arange(12) >= 6
    (resampled,) = image_auroc_resamples([np.arange(12.0)], anomalous)
    assert quantile_interval(resampled) == (1.0, 1.0)


def test_pixel_intervals_hold_the_exact_metrics() -> None:
    masks, maps, anomalous = labelled_maps(3, shift=1.5)
    intervals = pixel_intervals(masks, maps, anomalous)
    exact = {"pixel_auroc": auroc(masks, maps), "aupro": aupro(masks, maps)}
    assert set(intervals) == set(exact)
    for name, (low, high) in intervals.items():
        assert low < exact[name] < high
        assert high - low < 0.1


def test_images_that_are_all_alike_give_the_exact_metrics() -> None:
    masks, maps, _ = labelled_maps(4, shift=1.0)
    masks, maps = np.repeat(masks[15:16], 6, axis=0), np.repeat(maps[15:16], 6, axis=0)
    # A clean image of the same values gives the other class without new scores.
    masks[:3] = False
    intervals = pixel_intervals(masks, maps, np.arange(6) >= 3)
    for name, exact in (("pixel_auroc", auroc(masks, maps)), ("aupro", aupro(masks, maps))):
        assert intervals[name] == pytest.approx((exact, exact), abs=2e-3)


def test_equal_times_make_no_difference() -> None:
    rng = np.random.default_rng(5)
    rounds = rng.normal(10, 0.5, size=(20, 10)).tolist()
    others = rng.normal(10, 0.5, size=(20, 10)).tolist()
    ratio = paired_ratio(rounds, others)
    assert ratio.low < 1 < ratio.high
    assert ratio.verdict == "no difference"


def test_a_drift_that_both_share_does_not_hide_a_difference() -> None:
    drift = np.linspace(1, 3, 20)[:, None]
    noise = np.random.default_rng(6).normal(1, 0.01, size=(2, 20, 9))
    slow, fast = 12 * drift * noise[0], 10 * drift * noise[1]
    assert paired_ratio(slow.tolist(), fast.tolist()).median == pytest.approx(1.2, rel=0.01)
    assert paired_ratio(slow.tolist(), fast.tolist()).verdict == "slower"
    assert paired_ratio(fast.tolist(), slow.tolist()).verdict == "faster"


def times(count: int = 300) -> np.ndarray:
    return np.random.default_rng(7).normal(10, 0.2, count)


def test_a_steady_run_has_no_flag() -> None:
    assert steadiness(times()).flags == ()


def test_a_few_outliers_are_no_second_mode() -> None:
    found = times()
    found[::50] *= 5
    assert steadiness(found).flags == ()


def test_a_run_that_slows_down_is_drifting() -> None:
    found = steadiness(times() * np.linspace(1, 1.3, 300))
    assert found.flags == ("drifting",)
    # The medians of the first and last third stand at 1/6 and 5/6 of the way.
    assert found.drift == pytest.approx(1.25 / 1.05 - 1, abs=0.01)


def test_two_speeds_are_bimodal() -> None:
    found = times()
    found[1::3] *= 1.4
    assert "bimodal" in steadiness(found).flags
    assert "drifting" not in steadiness(found).flags


def test_wide_times_are_noisy() -> None:
    assert steadiness(np.tile(np.linspace(5, 15, 11), 30)).flags == ("noisy",)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_few_times_are_judged_without_failing(count: int) -> None:
    assert steadiness(np.full(count, 3.0)).flags == ()
