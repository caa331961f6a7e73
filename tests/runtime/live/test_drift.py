"""The test for drift: its false alarms, its delay, and exact arithmetic."""

from __future__ import annotations

import numpy as np
import pytest

from stpm.runtime.bundle.image_statistics import image_statistics
from stpm.runtime.live.drift import Drift, DriftMonitor


def test_false_alarms_keep_to_their_level() -> None:
    """Of 300 undisturbed runs of 500 images, with few and many calibration scores."""
    draw = np.random.default_rng(3)
    level, alarms, runs = 0.1, 0, 300
    for run in range(runs):
        monitor = DriftMonitor(draw.gamma(2, size=(5, 20, 300)[run % 3]).tolist(), level)
        alarms += [monitor.update(v) for v in draw.gamma(2, size=500).tolist()][-1].alarm
    assert alarms / runs < level + 3 * np.sqrt(level * (1 - level) / runs)


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
    assert found.index(True) > 5  # a thousand to one needs a few


def test_evidence_is_the_capital_of_a_fair_game() -> None:
    """The bets' mean over all possible ranks of a value leaves the capital as it was."""
    reference = [1.0, 2.0, 3.0]
    gaps = (0.5, 1.5, 2.5, 3.5)
    factors = [10 ** DriftMonitor(reference).update(gap).log10_evidence for gap in gaps]
    middle = [10 ** DriftMonitor([]).update(7.0).log10_evidence]
    # The same random number places the value within each of the four ranks.
    offset = middle[0] - 1
    assert np.mean(factors) == pytest.approx(1 + offset / 4, rel=1e-9)


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
