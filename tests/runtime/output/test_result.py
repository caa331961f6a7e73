"""Results: the verdict, the 8-connected regions, and boxes in pixels of the input image."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray
from scipy import ndimage

from stpm.runtime.output.components import label_regions
from stpm.runtime.output.result import Region, Result

Mask = NDArray[np.bool_]


def spiral(size: int) -> Mask:
    """One path of width 1 that winds inwards with gaps of 1."""
    mask = np.zeros((size, size), dtype=np.bool_)
    row, column, step = 0, 0, (0, 1)
    mask[0, 0] = True
    for turn in range(2 * size):
        length = size - 1 - 2 * max(0, (turn - 1) // 2) if turn else size - 1
        if length <= 0:
            break
        for _ in range(length):
            row, column = row + step[0], column + step[1]
            mask[row, column] = True
        step = (step[1], -step[0])
    return mask


def shapes() -> dict[str, Mask]:
    y, x = np.mgrid[:17, :17]
    rng = np.random.default_rng(0)
    return {
        "empty": np.zeros((5, 6), dtype=np.bool_),
        "full": np.ones((5, 6), dtype=np.bool_),
        "checkerboard": (x + y) % 2 == 0,
        "dots": (x % 2 == 0) & (y % 2 == 0),
        "comb": (x % 2 == 0) | (y == 16),
        "comb upwards": (x % 2 == 0) | (y == 0),
        "spiral": spiral(33),
        "two spirals": np.hstack([spiral(21), np.zeros((21, 1), np.bool_), spiral(21).T]),
        "rings": np.maximum(abs(x - 8), abs(y - 8)) % 2 == 0,
        "row": np.array([[True, True, False, True, False]]),
        "column": np.array([[True], [False], [True], [True]]),
        "pixel": np.ones((1, 1), dtype=np.bool_),
        "edges apart": (x == 0) | (x == 16),
        "noise": rng.random((256, 256)) < 0.4,
        "no pixels": np.zeros((0, 4), dtype=np.bool_),
    }


def assert_labels_match_scipy(mask: Mask) -> None:
    labels = label_regions(mask)
    expected, count = ndimage.label(mask, structure=np.ones((3, 3)))
    assert labels.dtype == np.int32
    assert labels.shape == mask.shape
    np.testing.assert_array_equal(labels > 0, mask)
    pairs = set(zip(labels[mask].tolist(), expected[mask].tolist(), strict=True))
    assert len(pairs) == count
    assert sorted(a for a, _ in pairs) == list(range(1, count + 1))
    assert sorted(b for _, b in pairs) == list(range(1, count + 1))


@pytest.mark.parametrize("name", shapes())
def test_labels_of_shapes(name: str) -> None:
    assert_labels_match_scipy(shapes()[name])


@settings(deadline=None)
@given(arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=24)))
def test_labels_of_any_mask(mask: Mask) -> None:
    assert_labels_match_scipy(mask)


@settings(deadline=None)
@given(st.integers(0, 10_000), st.floats(0.05, 0.95), st.integers(1, 60), st.integers(1, 60))
def test_labels_of_noise(seed: int, density: float, height: int, width: int) -> None:
    assert_labels_match_scipy(np.random.default_rng(seed).random((height, width)) < density)


def test_spiral_is_one_region() -> None:
    assert label_regions(spiral(33)).max() == 1
    assert spiral(33).mean() < 0.6


def test_labels_follow_the_reading_order() -> None:
    mask = np.array([[0, 0, 1, 0, 0, 1], [1, 0, 0, 0, 0, 1], [1, 0, 0, 1, 0, 0]], dtype=np.bool_)
    expected = [[0, 0, 1, 0, 0, 2], [3, 0, 0, 0, 0, 2], [3, 0, 0, 4, 0, 0]]
    np.testing.assert_array_equal(label_regions(mask), expected)


def result(anomaly_map: NDArray[np.float32], image_size: tuple[int, int] = (8, 12)) -> Result:
    return Result(float(anomaly_map.max()), anomaly_map, 4.0, 1.0, image_size)


def two_blobs() -> NDArray[np.float32]:
    anomaly_map = np.zeros((4, 6), dtype=np.float32)
    anomaly_map[0, 0] = 2
    anomaly_map[1, 1] = 3
    anomaly_map[2:4, 4:6] = [[5, 2], [1, 2]]
    return anomaly_map


def test_regions_are_in_image_pixels_and_sorted_by_peak() -> None:
    found = result(two_blobs()).regions
    assert found == (
        Region(box=(4, 8, 8, 12), area=12.0, peak=5.0),
        Region(box=(0, 0, 4, 4), area=8.0, peak=3.0),
    )


@settings(deadline=None)
@given(
    arrays(
        np.float32,
        array_shapes(min_dims=2, max_dims=2, max_side=9),
        elements=st.floats(0, 2, width=16),
    ),
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
)
def test_boxes_cover_their_pixels_and_stay_inside(
    anomaly_map: NDArray[np.float32], image_size: tuple[int, int]
) -> None:
    inspected = Result(0.0, anomaly_map, 1.0, 1.0, image_size)
    labels = label_regions(inspected.pred_mask)
    height, width = anomaly_map.shape
    expected = []
    for number in range(1, labels.max() + 1):
        rows, columns = np.nonzero(labels == number)
        y, x = image_size[0] / height, image_size[1] / width
        box = (
            int(np.floor(rows.min() * y + 1e-9)),
            int(np.floor(columns.min() * x + 1e-9)),
            int(np.ceil((rows.max() + 1) * y - 1e-9)),
            int(np.ceil((columns.max() + 1) * x - 1e-9)),
        )
        expected.append((box, float(anomaly_map[labels == number].max())))
    assert sorted((r.box, r.peak) for r in inspected.regions) == sorted(expected)
    for region in inspected.regions:
        top, left, bottom, right = region.box
        assert 0 <= top < bottom <= image_size[0]
        assert 0 <= left < right <= image_size[1]
    share = np.mean(inspected.pred_mask) * image_size[0] * image_size[1]
    assert sum(r.area for r in inspected.regions) == pytest.approx(share)


def test_verdict_is_strictly_above_the_threshold() -> None:
    anomaly_map = np.zeros((2, 2), dtype=np.float32)
    assert not Result(0.5, anomaly_map, 0.5, 0.5, (2, 2)).is_anomalous
    assert Result(0.5000001, anomaly_map, 0.5, 0.5, (2, 2)).is_anomalous


def test_mask_is_strictly_above_the_pixel_threshold() -> None:
    anomaly_map = np.array([[0.5, 0.6]], dtype=np.float32)
    mask = Result(0.6, anomaly_map, 0.5, 0.5, (2, 2)).pred_mask
    assert mask.dtype == np.bool_
    np.testing.assert_array_equal(mask, [[False, True]])


def test_mask_and_regions_are_computed_once() -> None:
    inspected = result(two_blobs())
    assert inspected.pred_mask is inspected.pred_mask
    assert inspected.regions is inspected.regions


def test_no_region_below_the_threshold() -> None:
    assert result(np.ones((4, 6), dtype=np.float32)).regions == ()


@pytest.mark.parametrize(
    ("score", "warn", "verdict"),
    [
        (0.5, None, "ok"),
        (2.0, None, "ok"),
        (2.5, None, "anomalous"),
        (1.0, 1.0, "ok"),
        (1.5, 1.0, "warn"),
        (2.0, 1.0, "warn"),
        (2.5, 1.0, "anomalous"),
    ],
)
def test_verdict(score: float, warn: float | None, verdict: str) -> None:
    inspected = Result(score, two_blobs(), 2.0, 1.0, (8, 12), warn)
    assert inspected.verdict == verdict
    assert inspected.is_anomalous == (verdict == "anomalous")


def test_summary_is_json() -> None:
    inspected = Result(np.float32(5), two_blobs(), np.float32(4), np.float32(1), (8, 12))
    summary = inspected.summary()
    assert json.loads(json.dumps(summary)) == summary
    assert summary == {
        "score": 5.0,
        "threshold": 4.0,
        "verdict": "anomalous",
        "is_anomalous": True,
        "regions": [
            {"box": [4, 8, 8, 12], "area": 12.0, "peak": 5.0},
            {"box": [0, 0, 4, 4], "area": 8.0, "peak": 3.0},
        ],
    }
