"""Defects found at false alarms, against counting by hand and the binomial law."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import binom

from stpm.benchmarks.measure.accuracy import accuracy_result
from stpm.benchmarks.measure.detection import Share, detections
from stpm.train.datasets import open_category, read_mask

RESULTS = Path(__file__).parents[3] / "benchmarks/results"


def row(good: list[float], bad: list[float], threshold: float | None = None) -> Any:
    """A kept row with other scores."""
    content = json.loads((RESULTS / "accuracy_bottle.json").read_text())
    found = content["categories"]["bottle"][-1]
    images = [{"name": f"good/{i}.png", "score": score} for i, score in enumerate(good)]
    images += [{"name": f"hole/{i}.png", "score": score} for i, score in enumerate(bad)]
    calibration = found["calibration"] | {"image_threshold": threshold} if threshold else None
    return found | {"images": images, "calibration": calibration}


def test_every_threshold_counts_what_is_above_it() -> None:
    good = [float(i) for i in range(100)]
    bad = [50.0, 93.5, 95.5, 98.5, 99.5, 120.0]
    own, one, five, every = detections(row(good, bad, threshold=97.0))
    assert (own.false_alarms, own.found) == (Share(2, 100), Share(3, 6))
    assert (one.threshold, one.false_alarms, one.found) == (98.0, Share(1, 100), Share(3, 6))
    assert (five.threshold, five.false_alarms, five.found) == (94.0, Share(5, 100), Share(4, 6))
    assert (every.false_alarms, every.found) == (Share(50, 100), Share(6, 6))
    assert every.threshold < 50


def test_few_good_images_allow_no_false_alarm() -> None:
    one, five, _ = detections(row([1.0, 2.0, 3.0], [2.5, 4.0]))
    assert one.false_alarms == five.false_alarms == Share(0, 3)
    assert five.found == Share(1, 2)


def test_equal_scores_are_counted_together() -> None:
    """A threshold among equal scores would promise what no threshold can do."""
    one, _, every = detections(row([1.0] * 50 + [2.0] * 50, [2.0, 3.0]))
    assert (one.false_alarms, one.found) == (Share(0, 100), Share(1, 2))
    assert (every.false_alarms, every.found) == (Share(50, 100), Share(2, 2))


@pytest.mark.parametrize("kind", ["good", "bad"])
def test_a_set_of_one_kind_has_its_own_threshold_alone(kind: str) -> None:
    good, bad = ([1.0, 2.0], []) if kind == "good" else ([], [1.0, 2.0])
    (own,) = detections(row(good, bad, threshold=1.5))
    assert own.false_alarms == Share(len(good) // 2, len(good))
    assert own.found == Share(len(bad) // 2, len(bad))
    assert detections(row(good, bad)) == []


@pytest.mark.parametrize(("count", "of"), [(0, 20), (3, 20), (20, 20), (97, 100)])
def test_intervals_are_those_of_the_binomial_law(count: int, of: int) -> None:
    low, high = Share(count, of).interval
    if count:
        assert binom.sf(count - 1, of, low) == pytest.approx(0.025)
    if count < of:
        assert binom.cdf(count, of, high) == pytest.approx(0.025)
    assert (low == 0, high == 1) == (count == 0, count == of)
    assert Share(0, 0).interval == (0, 1)


def test_a_region_is_found_where_the_map_exceeds_the_threshold(
    checkpoint_path: Path, data_root: Path
) -> None:
    record = accuracy_result([checkpoint_path], data_root)
    ((found,),) = record["categories"].values()
    samples = open_category(data_root, "weave").test_samples()
    counts = {}
    for sample in samples:
        if sample.is_anomalous:
            mask = read_mask(sample, (64, 64))
            counts[f"{sample.kind}/{sample.path.name}"] = _regions(mask)
    images = {image["name"]: image for image in found["images"]}
    assert {name: len(images[name]["regions"]) for name in counts} == counts
    assert all("regions" not in image for name, image in images.items() if name not in counts)
    for name in counts:
        assert max(images[name]["regions"], default=0) <= images[name]["score"]


def _regions(mask: np.ndarray) -> int:
    """Count 8-connected regions by flooding."""
    left = {tuple(place) for place in np.argwhere(mask).tolist()}
    count = 0
    while left:
        count += 1
        edge = [left.pop()]
        while edge:
            y, x = edge.pop()
            near = {(y + i, x + j) for i in (-1, 0, 1) for j in (-1, 0, 1)} & left
            left -= near
            edge += near
    return count
