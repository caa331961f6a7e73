"""Differences between result files, with known answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stpm.benchmarks.report.compare import compare_files
from stpm.runtime.errors import DataError

GOOD = [f"good/{i}.png" for i in range(20)]
BAD = [f"crack/{i}.png" for i in range(20)]


RESULTS = Path(__file__).parents[3] / "benchmarks/results"


def kept(name: str) -> dict[str, Any]:
    """A real result, of which a test changes what it is about."""
    content: dict[str, Any] = json.loads((RESULTS / name).read_text())
    return content


def write(path: Path, content: dict[str, Any]) -> Path:
    path.write_text(json.dumps(content))
    return path


def latency(path: Path, factor: float, name: str = "a") -> Path:
    times = np.random.default_rng(0).normal(10, 0.3, (12, 8))
    jitter = np.random.default_rng(int(1e6 * factor)).normal(1, 0.01, (12, 8))
    rounds = (factor * times * jitter).tolist()
    content = kept("latency_bottle.json")
    return write(
        path, content | {"cases": [content["cases"][0] | {"name": name, "rounds_ms": rounds}]}
    )


def accuracy(path: Path, scores: np.ndarray, names: list[str]) -> Path:
    images = [{"name": n, "score": float(s)} for n, s in zip(names, scores, strict=True)]
    content = kept("accuracy_screw_adopted.json")
    row = content["categories"]["screw"][0] | {"images": images}
    return write(path, content | {"categories": {"bottle": [row]}})


def test_a_slower_run_is_called_slower(tmp_path: Path) -> None:
    a, b = latency(tmp_path / "a.json", 1.0), latency(tmp_path / "b.json", 1.25)
    (found,) = compare_files(a, b)
    assert found.value == pytest.approx(1.25, rel=0.01)
    assert 1 < found.low < found.value < found.high
    assert found.verdict == "slower"
    assert compare_files(b, a)[0].verdict == "faster"


def test_the_same_speed_is_no_difference(tmp_path: Path) -> None:
    a, b = latency(tmp_path / "a.json", 1.0), latency(tmp_path / "b.json", 1.001)
    assert compare_files(a, b)[0].verdict == "no difference"


def test_a_lost_image_auroc_is_called_worse(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    before = np.concatenate([rng.normal(0, 1, 20), rng.normal(4, 1, 20)])
    after = np.concatenate([rng.normal(0, 1, 20), rng.normal(0.5, 1, 20)])
    a = accuracy(tmp_path / "a.json", before, GOOD + BAD)
    b = accuracy(tmp_path / "b.json", after, GOOD + BAD)
    (found,) = compare_files(a, b)
    assert found.value < 0
    assert found.verdict == "worse"
    assert compare_files(b, a)[0].verdict == "better"


def test_images_are_paired_by_name_and_not_by_order(tmp_path: Path) -> None:
    scores = np.random.default_rng(2).normal(size=40)
    a = accuracy(tmp_path / "a.json", scores, GOOD + BAD)
    b = accuracy(tmp_path / "b.json", scores[::-1], (GOOD + BAD)[::-1])
    (found,) = compare_files(a, b)
    assert (found.value, found.low, found.high) == (0, 0, 0)
    assert found.verdict == "no difference"


def test_files_without_a_common_case_are_refused(tmp_path: Path) -> None:
    a, b = latency(tmp_path / "a.json", 1.0), latency(tmp_path / "b.json", 1.0, name="b")
    with pytest.raises(DataError, match="no case in common"):
        compare_files(a, b)


def test_files_of_two_kinds_are_refused(tmp_path: Path) -> None:
    a = latency(tmp_path / "a.json", 1.0)
    b = accuracy(tmp_path / "b.json", np.zeros(40), GOOD + BAD)
    with pytest.raises(DataError, match="compare two files of the same kind"):
        compare_files(a, b)
