"""Scaling of `stpm-fleet score`: the model and the rates by hand, and one small measurement."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray")
from stpm.fleet.scaling import Stated, model, rates
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


def runs(*rows: tuple[str, int, int, float]) -> list[Any]:
    names = ("contender", "workers", "images", "seconds")
    return [dict(zip(names, row, strict=True)) | {"round": 0} for row in rows]


def test_a_fleets_start_is_left_out() -> None:
    found = rates(
        runs(
            ("one process", 1, 100, 10.0),
            ("one process", 1, 100, 5.0),
            ("one process", 1, 100, 20.0),
            ("fleet", 1, 16, 12.0),
            ("fleet", 1, 100, 20.0),
            ("fleet", 2, 32, 12.0),
            ("fleet", 2, 100, 16.0),
        )
    )
    assert found == {"one process": 10.0, "fleet of 1": 84 / 8, "fleet of 2": 68 / 4}


def test_noise_is_no_rate() -> None:
    noisy = runs(("one process", 1, 9, 1.0), ("fleet", 1, 16, 12.0), ("fleet", 1, 100, 11.0))
    assert rates(noisy) == {"one process": 9.0, "fleet of 1": None}


def test_the_command_writes_what_it_prints(
    bundle_path: Path, data_root: Path, tmp_path: Path
) -> None:
    for copy in range(7):
        shutil.copytree(data_root / "weave/train/good", tmp_path / f"images/{copy}")
    out = tmp_path / "scaling.json"
    words = ["scaling", bundle_path, tmp_path / "images", "--engine", "onnxruntime", "--out", out]
    command = [sys.executable, "-m", "stpm.fleet", *map(str, words), "--rounds", "1"]
    small = subprocess.run([*command, "--count", "50"], capture_output=True, text=True, check=False)
    assert small.returncode == 1
    assert "got 50 images, expected 96 or more" in small.stderr
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=400)
    assert done.returncode == 0, done.stderr
    result = json.loads(out.read_text())
    assert [(r["contender"], r["workers"], r["images"]) for r in result["runs"]] == [
        ("one process", 1, 96),
        ("fleet", 1, 16),
        ("fleet", 1, 96),
        ("fleet", 2, 32),
        ("fleet", 2, 96),
    ]
    assert [row["workers"] for row in result["model"]] == [1, 2, 10, 100, 1000]
    assert "fleet of 2" in done.stdout
