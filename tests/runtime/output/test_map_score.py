"""Scores read off maps, against SciPy's labels and plain NumPy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import ndimage

from stpm.runtime.output.map_score import MapScore, map_pixels
from stpm.runtime.output.result import Result

EIGHT = np.ones((3, 3), int)


def maps(seed: int, size: tuple[int, int] = (21, 34)) -> np.ndarray:
    """A map with ties, float32 (h,w)."""
    smooth = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=size), 1.5)
    return np.round((smooth - smooth.min()) * 40).astype(np.float32) / np.float32(40)


def opened_peak(values: np.ndarray, inside: np.ndarray, pixels: int) -> float:
    """The highest level with a large enough component, by trying all of them."""
    for level in np.unique(values[inside])[::-1]:
        labels, count = ndimage.label(inside & (values >= level), EIGHT)
        if count and np.bincount(labels.ravel())[1:].max() >= pixels:
            return float(level)
    return float(values[inside].min())


@pytest.mark.parametrize("area", [1, 2, 5, 40, 300, 5000])
@pytest.mark.parametrize("seed", range(4))
def test_the_smallest_defect_is_an_area_opening(seed: int, area: int) -> None:
    values = maps(seed)
    labels = np.ones(values.shape, np.uint8)
    labels[:, :5] = 0
    scores = MapScore(labels, (1.0,), min_area=area).roi_scores(values, values.shape)
    assert scores.dtype == np.float32
    assert scores.tolist() == [pytest.approx(opened_peak(values, labels > 0, area), abs=0)]


def test_each_region_has_its_own_score_and_weight() -> None:
    values = maps(9)
    labels = np.zeros(values.shape, np.uint8)
    labels[2:9, 3:20], labels[10:20, 12:30] = 1, 2
    scored = MapScore(labels, (1.0, 0.25), ("head", "thread"))
    weighted, scores = scored(np.stack([values, 2 * values]), [values.shape] * 2)
    expected = [values[2:9, 3:20].max(), values[10:20, 12:30].max() / 4]
    np.testing.assert_array_equal(scores, [expected, np.multiply(expected, 2)])
    assert (weighted[:, labels == 0] == 0).all()
    np.testing.assert_array_equal(weighted[0][labels == 2], values[labels == 2] / 4)


@pytest.mark.parametrize("percent", ["0.1", "2.5", "100"])
def test_the_mean_of_the_highest_is_of_the_region(percent: str) -> None:
    values = maps(3)
    labels = np.zeros(values.shape, np.uint8)
    labels[4:15, 4:28] = 1
    inside = np.sort(values[4:15, 4:28].ravel())[::-1]
    count = max(1, math.ceil(float(percent) / 100 * inside.size))
    scored = MapScore(labels, (1.0,), kind=f"top{percent}%")
    assert scored.roi_scores(values, values.shape)[0] == pytest.approx(
        inside[:count].mean(), rel=1e-6
    )


def test_an_area_of_the_image_is_rounded_up_to_pixels_of_the_map() -> None:
    assert map_pixels(0, 100, (20, 20)) == 0
    assert map_pixels(4, 100, (20, 20)) == 1
    assert map_pixels(5, 100, (20, 20)) == 2
    assert map_pixels(3, 400, (10, 10)) == 12


def test_small_regions_are_none() -> None:
    values = maps(5)
    result = Result(1.0, values, 0.5, float(np.quantile(values, 0.8)), values.shape, min_area=8)
    labels, count = ndimage.label(values > result.pixel_threshold, EIGHT)
    areas = np.bincount(labels.ravel())[1:]
    assert 0 < (areas >= 8).sum() < count
    assert sorted(region.area for region in result.regions) == sorted(areas[areas >= 8].tolist())
    np.testing.assert_array_equal(result.pred_mask, np.isin(labels, 1 + np.flatnonzero(areas >= 8)))
