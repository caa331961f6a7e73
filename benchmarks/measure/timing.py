"""How sure a time is: ratios of interleaved runs, and the steadiness of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stpm.benchmarks.measure.intervals import RESAMPLES, quantile_interval

DRIFT_LIMIT = 0.10
"""Relative difference between the medians of a run's first and last third."""
SPREAD_LIMIT = 0.25
"""Interquartile range over the median."""
TWO_MODES_LIMIT = 0.90
"""Share of the variance that a split in two explains: 0.64 for normal, 0.75 for uniform times."""
SMALLEST_MODE = 0.1
"""Share of the times below which a second mode counts as outliers."""


@dataclass(frozen=True)
class Ratio:
    """How many times longer one takes than the other.

    Attributes:
        median: over the rounds, of the ratio of their medians.
        low, high: its 95 % bootstrap interval over the rounds.
    """

    median: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """ "slower", "faster", or "no difference" when the interval holds 1."""
        if self.low > 1:
            return "slower"
        return "faster" if self.high < 1 else "no difference"


def paired_ratio(
    rounds: Sequence[Sequence[float]], reference: Sequence[Sequence[float]], seed: int = 0
) -> Ratio:
    """Compare times of the same rounds, so that a machine that drifts drifts for both.

    Args:
        rounds: times by round.
        reference: the other's, as many rounds.
        seed: of the draws.
    """
    pairs = zip(rounds, reference, strict=True)
    ratios = np.array([np.median(ours) / np.median(theirs) for ours, theirs in pairs])
    rng = np.random.default_rng(seed)
    drawn = rng.integers(len(ratios), size=(RESAMPLES, len(ratios)))
    low, high = quantile_interval(np.median(ratios[drawn], axis=1))
    return Ratio(float(np.median(ratios)), low, high)


@dataclass(frozen=True)
class Steadiness:
    """Whether a run's times may be summed up by a median.

    Attributes:
        drift: how much slower the last third of the run was than the first, relative.
        spread: interquartile range over the median.
        two_modes: share of the variance that the best split in two explains.
        flags: of "drifting", "bimodal" and "noisy", what holds; empty for a steady run.
    """

    drift: float
    spread: float
    two_modes: float
    flags: tuple[str, ...]


def steadiness(times: NDArray[np.floating[Any]]) -> Steadiness:
    """Judge times (N,) in the order in which they were measured."""
    third = max(len(times) // 3, 1)
    first, last = np.median(times[:third]), np.median(times[-third:])
    drift = float(last / first - 1)
    low, middle, high = np.quantile(times, [0.25, 0.5, 0.75])
    spread = float((high - low) / middle)
    explained, gap = _two_modes(np.sort(times))
    flags = {
        "drifting": abs(drift) > DRIFT_LIMIT,
        "bimodal": explained > TWO_MODES_LIMIT and gap > DRIFT_LIMIT * middle,
        "noisy": spread > SPREAD_LIMIT,
    }
    found = tuple(name for name, holds in flags.items() if holds)
    return Steadiness(drift, spread, explained, found)


def _two_modes(ordered: NDArray[np.floating[Any]]) -> tuple[float, float]:
    """Return the share of the variance between the two best groups, and how far apart they are.

    Source: Otsu, "A Threshold Selection Method from Gray-Level Histograms", 1979.
    """
    count = len(ordered)
    smallest = max(int(np.ceil(SMALLEST_MODE * count)), 1)
    total = float(np.var(ordered))
    if count < 2 * smallest or total == 0:
        return 0.0, 0.0
    sizes = np.arange(1, count)
    sums = np.cumsum(ordered)[:-1]
    gaps = (ordered.sum() - sums) / (count - sizes) - sums / sizes
    explained = gaps**2 * sizes * (count - sizes) / count**2 / total
    allowed = slice(smallest - 1, count - smallest)
    best = int(np.argmax(explained[allowed])) + allowed.start
    return float(explained[best]), float(gaps[best])
