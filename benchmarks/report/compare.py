"""Two result files of one kind, case by case: is there a difference?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from stpm.benchmarks.measure.intervals import image_auroc_resamples, quantile_interval
from stpm.benchmarks.measure.timing import paired_ratio
from stpm.benchmarks.records.accuracy import AccuracyRecord
from stpm.benchmarks.records.result_file import read_result
from stpm.benchmarks.records.speed import LatencyRecord, PeersRecord
from stpm.runtime.errors import DataError
from stpm.train.datasets import GOOD
from stpm.train.metrics import auroc

Timed = LatencyRecord | PeersRecord


@dataclass(frozen=True)
class Comparison:
    """One case that both files hold.

    Attributes:
        name: of the case.
        quantity: what is compared, with its unit or direction.
        value: of B against A.
        low, high: its 95 % interval.
        verdict: "no difference" when the interval holds what equal files would give.
    """

    name: str
    quantity: str
    value: float
    low: float
    high: float
    verdict: str


def compare_files(a: Path, b: Path) -> list[Comparison]:
    """Compare two result files, B against A.

    Times are compared as ratios of medians round by round, image AUROCs as differences on the same
    resampled images.

    Raises:
        DataError: the files are of different kinds, or no case is in both.
    """
    first, second = read_result(a), read_result(b)
    if first["kind"] != second["kind"]:
        raise DataError(
            f"{a} is of kind {first['kind']}, {b} of kind {second['kind']}; compare two "
            "files of the same kind."
        )
    if first["kind"] == "accuracy" and second["kind"] == "accuracy":
        found = list(_aurocs(first, second))
    elif first["kind"] in ("latency", "peers"):
        found = list(_times(first, cast(Timed, second)))
    else:
        raise DataError(
            f"{a} and {b} are of kind {first['kind']}, expected accuracy, latency or peers; "
            "compare two of these."
        )
    if not found:
        raise DataError(
            f"{a} and {b} have no case in common, or no good and defective test images; "
            "measure the same bundles with the same options."
        )
    return found


def _times(first: Timed, second: Timed) -> Iterator[Comparison]:
    before, after = (_timed_cases(content) for content in (first, second))
    for name in _common(before, after):
        rounds = min(len(before[name]), len(after[name]))
        ratio = paired_ratio(after[name][:rounds], before[name][:rounds])
        yield Comparison(name, "time, B over A", ratio.median, ratio.low, ratio.high, ratio.verdict)


def _timed_cases(content: Timed) -> dict[str, list[list[float]]]:
    if content["kind"] == "latency":
        return {case["name"]: case["rounds_ms"] for case in content["cases"]}
    return {f"{row['name']}, {row['precision']}": row["rounds_ms"] for row in content["peers"]}


def _aurocs(first: AccuracyRecord, second: AccuracyRecord) -> Iterator[Comparison]:
    before, after = (_scores(content) for content in (first, second))
    for name in _common(before, after):
        ordered = _common(before[name], after[name])
        anomalous = np.array([not image.startswith(f"{GOOD}/") for image in ordered])
        if anomalous.all() or not anomalous.any():
            continue
        scores = [np.array([found[name][image] for image in ordered]) for found in (before, after)]
        resampled = image_auroc_resamples(scores, anomalous)
        difference = auroc(anomalous, scores[1]) - auroc(anomalous, scores[0])
        low, high = quantile_interval(resampled[1] - resampled[0])
        verdict = "better" if low > 0 else "worse" if high < 0 else "no difference"
        yield Comparison(name, "image AUROC, B minus A", difference, low, high, verdict)


def _scores(content: AccuracyRecord) -> dict[str, dict[str, float]]:
    return {
        f"{category} {row['engine']} {row['precision']}": {
            image["name"]: image["score"] for image in row["images"]
        }
        for category, rows in content["categories"].items()
        for row in rows
    }


def _common(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    return [name for name in first if name in second]
