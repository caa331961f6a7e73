"""How sure an accuracy is: intervals by the bootstrap over images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from stpm.train.metrics import labelled_regions

Array = NDArray[np.float64]

RESAMPLES = 1000
COVERAGE = 0.95
LEVELS = 2000
"""Thresholds of the curves that are resampled; the exact metrics use every distinct score."""
FPR_LIMIT = 0.30
Interval = tuple[float, float]


def quantile_interval(values: Array) -> Interval:
    """Return the percentile interval of resampled values along their first axis."""
    tail = (1 - COVERAGE) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)


def mcnemar(first: int, second: int) -> float:
    """Return how probably two numbers differ so much by chance, where each is as likely (exact).

    Args:
        first: pairs that differ one way.
        second: pairs that differ the other way.

    Returns:
        The two-sided p-value; 1.0 where no pair differs.

    Source:
        McNemar, "Note on the sampling error of the difference between correlated proportions or
        percentages", Psychometrika 12, 1947; by the binomial law instead of chi-square.
    """
    differing = first + second
    return float(binomtest(first, differing).pvalue) if differing else 1.0


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
