"""How sure a measured figure is: intervals by the bootstrap, and steadiness of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stpm.train.metrics import labelled_regions

Array = NDArray[np.float64]

RESAMPLES = 1000
COVERAGE = 0.95
LEVELS = 2000
"""Thresholds of the curves that are resampled; the exact metrics use every distinct score."""
FPR_LIMIT = 0.30
DRIFT_LIMIT = 0.10
"""Relative difference between the medians of a run's first and last third."""
SPREAD_LIMIT = 0.25
"""Interquartile range over the median."""
TWO_MODES_LIMIT = 0.90
"""Share of the variance that a split in two explains: 0.64 for normal, 0.75 for uniform times."""
SMALLEST_MODE = 0.1
"""Share of the times below which a second mode counts as outliers."""

Interval = tuple[float, float]


def quantile_interval(values: Array) -> Interval:
    """Return the percentile interval of resampled values along their first axis."""
    tail = (1 - COVERAGE) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)


def resample_counts(count: int, rng: np.random.Generator) -> Array:
    """Draw how often each of `count` items occurs in each resample: (RESAMPLES, count)."""
    if not count:
        return np.empty((RESAMPLES, 0))
    return rng.multinomial(count, np.full(count, 1 / count), size=RESAMPLES).astype(np.float64)


def image_auroc_resamples(
    scores: Sequence[NDArray[np.floating[Any]]], anomalous: NDArray[np.bool_], seed: int = 0
) -> list[Array]:
    """Resample the image AUROC of one or more models on the same images.

    Good and defective images are drawn apart, so that their numbers stay; every model sees the
    same draws, so that differences between models are paired.

    Args:
        scores: (N,) a model.
        anomalous: bool (N,), with both classes.
        seed: of the draws.

    Returns:
        (RESAMPLES,) a model.

    Source:
        Efron and Tibshirani, "An Introduction to the Bootstrap", 1993.
    """
    rng = np.random.default_rng(seed)
    good = resample_counts(int((~anomalous).sum()), rng)
    bad = resample_counts(int(anomalous.sum()), rng)
    found = []
    for values in scores:
        above = values[anomalous][None, :] - values[~anomalous][:, None]
        wins = (np.sign(above) + 1) / 2
        found.append(np.einsum("bg,gd,bd->b", good, wins, bad, optimize=True) / wins.size)
    return found


def pixel_intervals(
    masks: NDArray[np.bool_],
    anomaly_maps: NDArray[np.floating[Any]],
    anomalous: NDArray[np.bool_],
    seed: int = 0,
) -> dict[str, Interval]:
    """Return intervals of pixel AUROC and AUPRO by drawing whole images with replacement.

    Pixels of one image depend on each other; images do not. The curves are taken at `LEVELS`
    thresholds, because resampling the exact ones would take hours.

    Args:
        masks: bool (N,H,W).
        anomaly_maps: float (N,H,W).
        anomalous: bool (N,); good and defective images are drawn apart.
        seed: of the draws.
    """
    good, defective, overlap, regions = _detected_by_image(masks, anomaly_maps)
    rng = np.random.default_rng(seed)
    counts = np.zeros((RESAMPLES, len(masks)))
    for group in (anomalous, ~anomalous):
        counts[:, group] = resample_counts(int(group.sum()), rng)
    fpr, tpr = (_shares(counts @ found) for found in (good, defective))
    pro = counts @ overlap / np.maximum(counts @ regions, 1)[:, None]
    pixel_auroc = (np.diff(fpr) * (tpr[:, 1:] + tpr[:, :-1]) / 2).sum(axis=1)
    grid = np.linspace(0, FPR_LIMIT, 301)
    aupro = [np.interp(grid, x, y) for x, y in zip(fpr, pro, strict=True)]
    areas = np.trapezoid(np.array(aupro), grid, axis=1) / FPR_LIMIT
    return {"pixel_auroc": quantile_interval(pixel_auroc), "aupro": quantile_interval(areas)}


def _shares(detected: Array) -> Array:
    return detected / np.maximum(detected[:, -1:], 1)


def _detected_by_image(
    masks: NDArray[np.bool_], anomaly_maps: NDArray[np.floating[Any]]
) -> tuple[Array, Array, Array, Array]:
    """Count, for each image and falling threshold, what is at least at the threshold.

    Returns:
        Good pixels, defective pixels and summed region overlaps, (N, LEVELS + 1) each, from nothing
        detected to everything, and the number of regions (N,).
    """
    labels, weights = labelled_regions(masks)
    shares = weights * (len(weights) - 1)
    # Half of them spread over all false positive rates, half over the first hundredth.
    rates = np.concatenate([np.linspace(0, 1, LEVELS // 2), np.linspace(0, 0.01, LEVELS // 2)])
    thresholds = np.unique(np.quantile(anomaly_maps[~masks], 1 - rates))
    bins = len(thresholds) + 1
    rows: list[list[Array]] = []
    for regions, anomaly_map in zip(labels, anomaly_maps, strict=True):
        level = np.searchsorted(thresholds, anomaly_map.ravel(), side="right")
        region = regions.ravel()
        parts = (region == 0, region > 0, shares[region])
        rows.append([np.bincount(level, part, bins)[::-1].cumsum() for part in parts])
    table = np.array(rows)
    zero = np.zeros((len(masks), 1))
    good, defective, overlap = (np.hstack([zero, table[:, i]]) for i in range(3))
    counts = np.array([len(np.unique(regions[regions > 0])) for regions in labels], np.float64)
    return good, defective, overlap, counts


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
