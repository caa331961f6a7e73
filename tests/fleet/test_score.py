"""`stpm-fleet score`: a row an image, each once, from the disk and over HTTP."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from stores import STORES

from stpm.runtime.detector import Detector

pytest.importorskip("ray")
pq = pytest.importorskip("pyarrow.parquet")
ENGINE = "onnxruntime"
TIMEOUT_S = 300
COPIES = 5


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory, data_root: Path) -> Path:
    """The tiny data set's images several times, and a file that is none."""
    root = tmp_path_factory.mktemp("archive")
    for copy in range(COPIES):
        shutil.copytree(data_root / "weave/train/good", root / f"day{copy}")
    (root / "day0/broken.png").write_text("no image")
    (root / "notes.txt").write_text("left out")
    return root


@pytest.fixture(scope="module", params=STORES)
def store(request: pytest.FixtureRequest, archive: Path, bundle_path: Path) -> Iterator[str]:
    """A store on the loopback: the address of a folder with images and bundle."""
    shutil.copytree(bundle_path, archive / "weave.stpm")
    with STORES[request.param](archive) as address:
        yield address
    shutil.rmtree(archive / "weave.stpm")


def command(*words: object) -> list[str]:
    flags = ["--engine", ENGINE, "--workers", "1"]
    return [sys.executable, "-m", "stpm.fleet", "score", *map(str, words), *flags]


def rows_of(out: Path) -> list[dict[str, Any]]:
    return [row for file in out.glob("*.parquet") for row in pq.read_table(file).to_pylist()]


def test_a_row_an_image_also_after_a_kill(archive: Path, bundle_path: Path, tmp_path: Path) -> None:
    out = tmp_path / "scores"
    words = command(bundle_path, archive, "--out", out)
    killed = subprocess.Popen(words, start_new_session=True)
    time.sleep(12)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    subprocess.run(words, check=True, timeout=TIMEOUT_S)
    rows = rows_of(out)
    paths = sorted(str(path) for path in archive.glob("day*/*.png"))
    assert sorted(row["path"] for row in rows) == paths
    detector = Detector(bundle_path, ENGINE, threads=1)
    for row in rows:
        if row["path"].endswith("broken.png"):
            assert "not an image" in row["error"]
            assert row["score"] is row["is_anomalous"] is None
            continue
        result = detector(row["path"])
        assert (row["score"], row["is_anomalous"]) == (result.score, result.is_anomalous)
        assert row["threshold"] == result.threshold
        boxes = [[r["top"], r["left"], r["bottom"], r["right"]] for r in row["regions"]]
        assert boxes == [list(region.box) for region in result.regions]

    half, *_ = sorted(out.glob("*.parquet"))
    half.write_bytes(half.read_bytes()[:-9])
    again = subprocess.run(words, check=True, timeout=TIMEOUT_S, capture_output=True, text=True)
    assert "Traceback" not in again.stderr
    assert sorted(row["path"] for row in rows_of(out)) == paths
    done = subprocess.run(words, check=True, timeout=TIMEOUT_S, capture_output=True, text=True)
    assert f"{len(paths)} images, {len(paths)} scored before" in done.stderr


def test_bundle_and_images_may_lie_in_a_store(
    store: str, archive: Path, bundle_path: Path, tmp_path: Path
) -> None:
    out = tmp_path / "scores"
    words = command(f"{store}/weave.stpm", f"{store}/day0", "--out", out)
    subprocess.run(words, check=True, timeout=TIMEOUT_S)
    detector = Detector(bundle_path, ENGINE, threads=1)
    rows = {row["path"].rpartition("/")[2]: row for row in rows_of(out)}
    assert sorted(rows) == sorted(path.name for path in (archive / "day0").glob("*.png"))
    assert rows["broken.png"]["path"] == f"{store}/day0/broken.png"
    assert "not an image" in rows.pop("broken.png")["error"]
    for name, row in rows.items():
        assert row["score"] == detector(archive / "day0" / name).score
