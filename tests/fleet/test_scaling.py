"""Scaling of `stpm-fleet score`: the model and the rates by hand, and one small measurement."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from stpm.runtime.errors import BackendError

pytest.importorskip("ray")
from stpm.fleet.scaling import Stamp, Stated, medians, model, steady
from stpm.fleet.score import block_count

MEASURED = {
    "decode_ms": 10.0,
    "score_ms": 40.0,
    "image_bytes": 1e6,
    "tasks_per_second": 30.0,
}
STATED = Stated(store_gbit=8.0, store_requests=5000.0, archive_images=1_000_000)


@pytest.mark.parametrize(
    ("workers", "changed", "expected"),
    [
        (1, {}, (20.0, "workers")),  # 1 / 0.050 s
        (40, {}, (800.0, "workers")),
        (1000, {}, (1000.0, "store's bandwidth")),  # 8 Gbit are 1000 MB a second
        (1000, {"image_bytes": 1e4}, (1875.0, "scheduler")),  # 16000 tasks of 62.5 images
        (1000, {"image_bytes": 1e4, "tasks_per_second": 1e3}, (5000.0, "store's requests")),
    ],
)
def test_the_narrowest_place_decides(
    workers: int, changed: dict[str, float], expected: tuple[float, str]
) -> None:
    found = model(MEASURED | changed, STATED, workers)
    assert found["images_per_second"] == pytest.approx(expected[0])
    assert (found["workers"], found["limit"]) == (workers, expected[1])


@pytest.mark.parametrize(
    ("images", "workers", "blocks"),
    [(1, 2, 1), (16, 2, 1), (17, 2, 2), (16000, 2, 1000), (10**6, 2, 1000), (10**6, 1000, 16000)],
)
def test_a_million_images_are_no_million_files(images: int, workers: int, blocks: int) -> None:
    assert block_count(images, workers) == blocks


def test_a_fleets_start_is_left_out() -> None:
    """Worker 8 has done its first two images at 13 s; five are done by 15.5 s."""
    of_7 = [Stamp(12.0, 7, 1.0)] * 2 + [Stamp(14.0, 7, 1.5)] * 2
    of_8 = [Stamp(13.0, 8, 4.0)] * 2 + [Stamp(15.0, 8, 4.25)] * 2 + [Stamp(15.5, 8, 4.5)]
    # Of the processor 0.5 s for two images of worker 7, and 0.5 s for three of worker 8.
    assert steady(sorted(of_7 + of_8), 2) == (5, 2.5, 200.0)
    with pytest.raises(BackendError, match="of 2 workers 1 had work"):
        steady(of_7, 2)
    with pytest.raises(BackendError, match="0 images were left"):
        steady([*of_7, Stamp(14.5, 8, 1.0)], 2)


def test_figures_are_medians_over_rounds() -> None:
    rows = [("one process", 1, 10.0), ("one process", 1, 5.0), ("one process", 1, 20.0)]
    rows += [("fleet", 1, 8.0), ("fleet", 2, 4.0)]
    runs: list[Any] = [
        dict(zip(("contender", "workers", "seconds"), row, strict=True)) for row in rows
    ]
    found = medians(runs, lambda run: run["seconds"])
    assert found == {"one process": 10.0, "fleet of 1": 8.0, "fleet of 2": 4.0}


def test_the_command_writes_what_it_prints(
    bundle_path: Path, data_root: Path, tmp_path: Path
) -> None:
    for copy in range(13):
        shutil.copytree(data_root / "weave/train/good", tmp_path / f"images/{copy}")
    out = tmp_path / "scaling.json"
    words = ["scaling", bundle_path, tmp_path / "images", "--engine", "onnxruntime", "--out", out]
    command = [sys.executable, "-m", "stpm.fleet", *map(str, words), "--rounds", "1"]
    small = subprocess.run([*command, "--count", "50"], capture_output=True, text=True, check=False)
    assert small.returncode == 1
    assert "got 50 images, expected 128 or more" in small.stderr
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=400)
    assert done.returncode == 0, done.stderr
    result = json.loads(out.read_text())
    assert [(r["contender"], r["workers"]) for r in result["runs"]] == [
        ("one process", 1),
        ("fleet", 1),
        ("fleet", 2),
    ]
    assert all(0 < run["images"] < 192 for run in result["runs"][1:])
    assert result["tasks_per_second"] < 1e5
    assert all(milliseconds > 0 for milliseconds in result["processor_ms"].values())
    assert [row["workers"] for row in result["model"]] == [1, 2, 10, 100, 1000]
    assert "fleet of 2" in done.stdout
