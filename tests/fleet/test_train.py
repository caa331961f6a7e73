"""`stpm-fleet train` on Ray: done once, failed alone, killed and taken up bit for bit."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from stpm.runtime.bundle.archive import MANIFEST, Bundle

pytest.importorskip("ray")
SEEDS = (0, 1)
KILLS = 3
TIMEOUT_S = 500
TASK = b"ray::build_model"


def fleet_file(folder: Path, data_root: Path, teacher_file: Path, products: str = "") -> Path:
    path = folder / "fleet.toml"
    path.write_text(
        f"""
seeds = {list(SEEDS)}
[products]
weave = {{ data = "{data_root}" }}
{products}
[train]
epochs = 2
input-size = 64
batch-size = 4
learning-rate = 0.1
teacher-weights = "{teacher_file}"
device = "cpu"
precision = "fp32"
[export]
engine = ["onnxruntime"]
false-alarm-rate = 0.3
""",
        encoding="utf-8",
    )
    return path


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "stpm.fleet", "train", *map(str, words)]


def rows_of(out: Path) -> dict[str, dict[str, Any]]:
    rows = json.loads((out / "fleet.json").read_text(encoding="utf-8"))["fleet"]
    return {row["name"]: row for row in rows}


def bundles(out: Path) -> dict[str, bytes]:
    return {
        path.relative_to(out).as_posix(): path.read_bytes()
        for path in sorted(out.glob("*/*.stpm/*"))
    }


@pytest.fixture(scope="module")
def built(
    tmp_path_factory: pytest.TempPathFactory, data_root: Path, teacher_file: Path
) -> tuple[Path, str]:
    """A fleet of two good models and two that cannot be trained: its file, and what was said."""
    folder = tmp_path_factory.mktemp("fleet")
    plan = fleet_file(folder, data_root, teacher_file, 'absent = "no/such/folder"')
    done = subprocess.run(
        command(plan), capture_output=True, text=True, check=False, timeout=TIMEOUT_S
    )
    assert done.returncode == 1, done.stderr
    return plan, done.stderr


def test_a_failed_model_does_not_stop_the_others(built: tuple[Path, str]) -> None:
    plan, said = built
    rows = rows_of(plan.with_suffix(""))
    assert list(rows) == ["weave-0", "weave-1", "absent-0", "absent-1"]
    for seed in SEEDS:
        assert "there is no such folder" in rows[f"absent-{seed}"]["error"]
        row = rows[f"weave-{seed}"]
        bundle = Bundle(plan.with_suffix("") / f"weave-{seed}/weave-{seed}.stpm")
        calibration = bundle.manifest.engines["onnxruntime"].calibration
        assert row["threshold"] == calibration.image_threshold
        assert row["size_bytes"] == sum(e.size_bytes for e in bundle.manifest.files.values())
        assert bundle.manifest.provenance["training"]["options"]["seed"] == seed
        assert 0 <= row["figures"]["image_auroc"] <= 1
    assert "error: 2 of 4 models failed" in said
    assert "Traceback" not in said


def test_the_page_has_a_row_a_model(built: tuple[Path, str]) -> None:
    page = (built[0].with_suffix("") / "report.html").read_text(encoding="utf-8")
    for name in ("weave-0", "weave-1", "absent-0", "absent-1"):
        assert name in page
    assert "no such folder" in page


def test_killed_workers_are_taken_up_bit_for_bit(
    built: tuple[Path, str], data_root: Path, teacher_file: Path, tmp_path: Path
) -> None:
    """Workers are killed at random moments; the bundles are those of a fleet left alone."""
    plan = fleet_file(tmp_path, data_root, teacher_file)
    running = subprocess.Popen(command(plan), stderr=subprocess.PIPE, text=True)
    chance, killed = random.Random(0), 0
    try:
        end = time.monotonic() + TIMEOUT_S
        while running.poll() is None and time.monotonic() < end:
            workers = _workers(running.pid)
            if workers and killed < KILLS:
                time.sleep(chance.uniform(0, 5))
                with contextlib.suppress(ProcessLookupError):
                    os.kill(chance.choice(workers), signal.SIGKILL)
                    killed += 1
            time.sleep(0.2)
        _, said = running.communicate(timeout=10)
    finally:
        running.kill()
    assert running.returncode == 0, said
    assert killed == KILLS
    assert bundles(plan.with_suffix("")) == bundles(built[0].with_suffix(""))


def test_what_is_done_is_not_done_again_and_what_changed_is(
    built: tuple[Path, str], data_root: Path, teacher_file: Path, tmp_path: Path
) -> None:
    plan = fleet_file(tmp_path, data_root, teacher_file)
    out = plan.with_suffix("")
    shutil.copytree(built[0].with_suffix(""), out)
    shutil.rmtree(out / "absent-0", ignore_errors=True)
    damaged = out / "weave-1/weave-1.stpm" / MANIFEST
    whole = damaged.read_bytes()
    damaged.write_bytes(whole + b"\n")
    before = {path: path.stat().st_mtime_ns for path in (out / "weave-0").rglob("*")}
    subprocess.run(command(plan), check=True, timeout=TIMEOUT_S)
    assert {path: path.stat().st_mtime_ns for path in (out / "weave-0").rglob("*")} == before
    assert damaged.read_bytes() == whole
    assert {name: row["reused"] for name, row in rows_of(out).items()} == {
        "weave-0": True,
        "weave-1": False,
    }


def test_a_folder_of_something_else_is_kept(
    data_root: Path, teacher_file: Path, tmp_path: Path
) -> None:
    plan = fleet_file(tmp_path, data_root, teacher_file)
    for seed in SEEDS:
        kept = plan.with_suffix("") / f"weave-{seed}/kept.txt"
        kept.parent.mkdir(parents=True)
        kept.write_text("kept")
    done = subprocess.run(
        command(plan), capture_output=True, text=True, check=False, timeout=TIMEOUT_S
    )
    assert done.returncode == 1
    assert "not a model of a fleet" in done.stderr
    assert kept.read_text() == "kept"


def _workers(ancestor: int) -> list[int]:
    """Name the workers of a fleet's own Ray, which are its descendants, that build a model."""
    parents, workers = {}, []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdecimal():
            continue
        with contextlib.suppress(OSError):
            parents[int(folder.name)] = int(
                (folder / "stat").read_text().rpartition(")")[2].split()[1]
            )
            if (folder / "cmdline").read_bytes().startswith(TASK):
                workers.append(int(folder.name))

    def descends(pid: int) -> bool:
        while pid in parents and pid != ancestor:
            pid = parents[pid]
        return pid == ancestor

    return [pid for pid in workers if descends(pid)]
