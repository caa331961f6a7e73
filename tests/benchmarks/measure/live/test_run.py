"""A short load on a real station: nothing is lost while things fail around it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from stpm.benchmarks.cli import main
from stpm.benchmarks.records.result_file import read_result
from stpm.benchmarks.report.document import write_report

MOSQUITTO = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")


@pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed")
def test_nothing_is_lost(bundle_path: Path, data_root: Path, tmp_path: Path) -> None:
    out = tmp_path / "live.json"
    words = [bundle_path, "--images", data_root / "weave/test/good", "--cameras", 2, "--rate", 2]
    words += ["--size", "96x80", "--minutes", 0.2, "--engine", "onnxruntime", "--threads", 1]
    result = CliRunner().invoke(main, ["live", *map(str, words), "--out", str(out)])
    assert result.exit_code == 0, result.output
    record = read_result(out)
    assert record["kind"] == "live"
    assert [camera["lost"] for camera in record["cameras"]] == [0, 0]
    for camera in record["cameras"]:
        assert sum(camera["verdicts"].values()) == camera["sent"] > 0
        assert set(camera["verdicts"]) <= {"ok", "warn", "anomalous"}
    assert [camera["away_s"] is None for camera in record["cameras"]] == [False, True]
    sent = sum(camera["sent"] for camera in record["cameras"])
    messages = record["messages"]
    assert (messages["lines"], messages["heard"]) == (sent, sent)
    assert messages["twice"] <= 2  # at least once: the broker is stopped in between
    assert [(sink["kind"], sink["sent"] + sink["lost"]) for sink in record["sinks"]] == [
        (kind, sent) for kind in ("mqtt", "pictures", "page")
    ]
    assert record["chain"] == ""
    assert [failure["what"] for failure in record["failures"]][:2] == [
        "broker stopped",
        "camera unplugged",
    ]
    assert str(tmp_path) not in out.read_text().replace(record["command"], "")
    write_report([out], tmp_path / "report.md")
    assert "A station under load" in (tmp_path / "report.md").read_text()


def test_what_cannot_be_measured_is_said(bundle_path: Path, tmp_path: Path) -> None:
    for words, says in (
        ((tmp_path / "none.stpm",), "none.stpm"),
        ((bundle_path, "--cycle-time", "soon"), "expected for example 250ms"),
        ((bundle_path, "--out", tmp_path / "none/live.json"), "there is no such folder"),
    ):
        result = CliRunner().invoke(main, ["live", *map(str, words)])
        assert result.exit_code == 1, result.output
        assert says in result.stderr.splitlines()[-1]
