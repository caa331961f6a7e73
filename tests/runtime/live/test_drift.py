"""The test for drift: its false alarms, its delay, and exact arithmetic."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from scipy.stats import binom

from stpm.runtime.bundle.image_statistics import image_statistics
from stpm.runtime.live.drift import BETS, Drift, DriftMonitor, bet_factors


@pytest.mark.parametrize("calibration", [0, 5, 20, 300])
@pytest.mark.parametrize("kinds", [0, 7])
def test_false_alarms_keep_to_their_level(calibration: int, kinds: int) -> None:
    """Of 250 undisturbed runs of 300 images, of all different values or of a few that recur."""
    draw = np.random.default_rng((3, calibration, kinds))
    level, runs = 0.1, 250

    def scores(count: int) -> list[float]:
        values = draw.gamma(2, size=count)
        return (np.floor(values * kinds) / kinds if kinds else values).tolist()

    alarms = 0
    for _ in range(runs):
        monitor = DriftMonitor(scores(calibration), level)
        alarms += [monitor.update(value) for value in scores(300)][-1].alarm
    # A right bound is exceeded once in a thousand times; the seed is fixed.
    assert alarms <= binom.ppf(0.999, runs, level)
    assert alarms > 0


def test_an_alarm_stays() -> None:
    monitor = DriftMonitor(np.linspace(0, 1, 200).tolist())
    states = [monitor.update(5 + i) for i in range(30)]
    states += [monitor.update(0.5) for _ in range(500)]
    assert states[-1].alarm
    assert max(state.log10_evidence for state in states) >= 3


@pytest.mark.parametrize("before", [0, 3000])
@pytest.mark.parametrize("shift", [0.5, 2.0])
def test_a_change_is_found_within_a_hundred_images(before: int, shift: float) -> None:
    draw = np.random.default_rng(8)
    monitor = DriftMonitor(draw.lognormal(0, 0.3, 300).tolist())
    assert not any(monitor.update(v).alarm for v in draw.lognormal(0, 0.3, before).tolist())
    found = [monitor.update(v * shift).alarm for v in draw.lognormal(0, 0.3, 100).tolist()]
    assert found[-1]
    assert found.index(True) > 3  # a tenth of the capital grows eightfold at most


def test_every_bet_is_fair_and_never_loses_more_than_all() -> None:
    """Gauss's quadrature is exact for polynomials of degree 7."""
    points, weights = np.polynomial.legendre.leggauss(8)
    factors = np.array([bet_factors((1 + x) / 2) for x in points])
    np.testing.assert_allclose(weights @ factors / 2, np.ones(BETS), rtol=1e-12)
    assert min(min(bet_factors(p)) for p in np.linspace(0, 1, 1001)) >= 0


def test_evidence_is_the_mean_of_games_that_begin_at_every_value() -> None:
    """Capital by the definition: at each value every bet gets its part of what enters."""
    values = np.random.default_rng(4).normal(size=12).tolist()
    monitor = DriftMonitor([])
    found = [10 ** monitor.update(value).log10_evidence for value in values]
    p_values = _p_values(values)
    reserve = [1 / (1 + math.log(1 + t)) for t in range(len(values) + 1)]
    for end in range(1, len(values) + 1):
        total = reserve[end]
        for begin in range(end):
            capital = np.full(BETS, (reserve[begin] - reserve[begin + 1]) / BETS)
            for p in p_values[begin:end]:
                capital = (0.99 * capital + 0.01 * capital.mean()) * bet_factors(p)
            total += capital.sum()
        assert found[end - 1] == pytest.approx(total, rel=1e-9)


def _p_values(values: Sequence[float]) -> list[float]:
    """Rank each value among those before, by SplitMix64 as its authors published it."""
    found, state, mask = [], 0x9E3779B97F4A7C15, (1 << 64) - 1
    for count, value in enumerate(values):
        state = (state + 0x9E3779B97F4A7C15) & mask
        z = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        uniform = ((z ^ (z >> 31)) >> 11) / 2**53
        below = sum(other < value for other in values[:count])
        found.append((below + uniform) / (count + 1))
    return found


@pytest.mark.parametrize("before", [0, 2000])
@pytest.mark.parametrize("scale", [0.4, 2.5])
def test_values_that_scatter_otherwise_are_found(before: int, scale: float) -> None:
    """The middle stays where it is."""
    draw = np.random.default_rng(5)
    monitor = DriftMonitor(draw.normal(size=300).tolist())
    assert not any(monitor.update(v).alarm for v in draw.normal(size=before).tolist())
    found = [monitor.update(scale * v).alarm for v in draw.normal(size=300).tolist()]
    assert found[-1]


def test_a_value_beyond_all_is_found_at_once() -> None:
    draw = np.random.default_rng(6)
    monitor = DriftMonitor(draw.normal(size=300).tolist())
    found = [monitor.update(v).alarm for v in draw.normal(9, size=20).tolist()]
    assert found.index(True) < 8


def test_light_and_focus_are_told_apart() -> None:
    draw = np.random.default_rng(1)
    image = draw.integers(60, 200, (300, 200, 3)).astype(np.uint8)
    plain = image_statistics(image)
    assert plain["brightness"] == pytest.approx(image[::2, :, 1].mean())
    steps = np.abs(np.diff(image[::2, :, 1].astype(int), axis=1)).mean()
    assert plain["sharpness"] == pytest.approx(steps / plain["brightness"])
    assert plain["saturation"] == 0
    dim = image_statistics((image * 0.8).astype(np.uint8))
    assert dim["brightness"] == pytest.approx(0.8 * plain["brightness"], rel=0.01)
    assert dim["sharpness"] == pytest.approx(plain["sharpness"], rel=0.02)
    image[:150] = 255
    assert image_statistics(image)["saturation"] == 0.5


def test_one_plane_of_grey_has_the_statistics_of_three() -> None:
    plane = np.random.default_rng(3).integers(0, 256, (300, 41, 1), np.uint8)
    assert image_statistics(plane) == image_statistics(np.repeat(plane, 3, axis=2))


def test_dimmed_light_is_named() -> None:
    draw = np.random.default_rng(2)

    def image(light: float) -> np.ndarray:
        return (draw.normal(120, 20, (40, 40, 3)) * light * draw.normal(1, 0.01)).astype(np.uint8)

    values = [image_statistics(image(1)) for _ in range(60)]
    statistics = {name: [v[name] for v in values] for name in values[0]}
    drift = Drift(draw.gamma(2, size=60).tolist(), statistics)
    for _ in range(60):
        found = drift.update(draw.gamma(2), image(0.8))
    assert found["alarms"] == ["brightness"]
