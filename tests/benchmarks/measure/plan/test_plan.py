"""`stpm-bench plan` on a tiny model, and the station that it tries."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from stpm.benchmarks.cli import main
from stpm.benchmarks.measure.plan.trial import try_station
from stpm.benchmarks.records.result_file import read_result
from stpm.benchmarks.report.document import write_report
from stpm.runtime import Detector

ENGINE = "onnxruntime"


def plan(bundle: Path, *words: object) -> tuple[int, str, str]:
    fixed = [bundle, "--cameras", 2, "--size", "80x96", "--engine", ENGINE, "--threads", 1]
    result = CliRunner().invoke(main, ["plan", *map(str, [*fixed, "--cycles", 3, *words])])
    return result.exit_code, result.stdout, result.stderr


def test_a_cycle_that_is_held(bundle_path: Path, tmp_path: Path) -> None:
    out = tmp_path / "plan.json"
    code, stdout, stderr = plan(bundle_path, "--cycle-time", "60s", "--out", out)
    assert code == 0, stderr
    record = read_result(out)
    assert record["kind"] == "plan"
    (found,) = record["arrangements"]
    assert (
        record["chosen"] == record["nearest"] == found["name"] == "weave.stpm onnxruntime threads 1"
    )
    assert [len(times) for times in found["rounds_ms"]] == [2, 2, 2]
    together = np.concatenate(found["rounds_ms"])
    assert found["latency_ms"] is not None
    assert found["latency_ms"]["p99"] == pytest.approx(np.percentile(together, 99), abs=1e-3)
    assert record["left_ms"] == pytest.approx(60_000 - found["latency_ms"]["p99"])
    assert set(found["stages_ms"]) == {"wait", "decode", "score"}
    assert record["station"].startswith("stpm-live weave.stpm camera1=ADDRESS camera2=ADDRESS")
    assert record["advice"] == []
    assert "--threads" in stdout
    write_report([out], tmp_path / "report.md")
    assert record["station"] in (tmp_path / "report.md").read_text().replace("\\", "")


def test_a_cycle_that_none_holds_is_refused_with_what_would(
    bundle_path: Path, tmp_path: Path
) -> None:
    out = tmp_path / "plan.json"
    code, stdout, stderr = plan(bundle_path, "--cycle-time", "0.01ms", "--out", out)
    assert code == 1
    last = stderr.splitlines()[-1]
    assert last.startswith("error: no arrangement holds 0.01 ms; nearest comes weave.stpm")
    assert "To try: a cycle of" in last
    record = read_result(out)
    assert record["kind"] == "plan"
    assert (record["chosen"], record["station"]) == (None, "")
    assert record["advice"][0].startswith("a cycle of ")
    assert "too slow" in stdout


def test_what_cannot_be_planned_is_said(bundle_path: Path, tmp_path: Path) -> None:
    code, _, stderr = plan(bundle_path, "--cycle-time", "soon")
    assert (code, "expected for example 250ms" in stderr) == (1, True)
    code, _, stderr = plan(tmp_path / "none.stpm", "--cycle-time", "1s")
    assert (code, "none.stpm" in stderr) == (1, True)
    assert plan(bundle_path, "--cycle-time", "0")[0] == 2
    assert plan(bundle_path)[0] == 2


def test_a_late_frame_is_late_from_when_it_was_due(bundle_path: Path) -> None:
    """Frames that come faster than they are scored wait for each other, and that counts."""
    detector = Detector(bundle_path, ENGINE, threads=1)
    image = np.full((80, 96, 3), 90, np.uint8)
    trial = try_station(detector, [image], cameras=1, count=30, period_ns=1)
    assert len(trial.latencies_ms) == len(trial.entries) == 30
    assert trial.latencies_ms == sorted(trial.latencies_ms)
    assert trial.latencies_ms[-1] == pytest.approx(1e3 * trial.seconds, rel=1e-3)
    scored = sum(entry["latency_ms"]["score"] for entry in trial.entries)
    assert trial.latencies_ms[-1] >= scored
