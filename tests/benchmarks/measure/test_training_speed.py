"""The benchmark of training, on tiny images."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from stpm.benchmarks.measure.training_speed import PlainScript, main


def run(good: Path, teacher: Path, out: Path) -> tuple[int, str]:
    arguments = ["--good", good, "--teacher-weights", teacher, "--input-size", 64, "--out", out]
    result = CliRunner().invoke(main, [str(x) for x in [*arguments, "--rounds", 2]])
    return result.exit_code, result.output


def test_both_compute_the_same(data_root: Path, teacher_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "found.json"
    code, output = run(data_root / "weave/train/good", teacher_file, out)
    assert code == 0, output
    found = json.loads(out.read_text())
    ours, plain = found["stpm_train"], found["plain_script"]
    assert ours[0]["loss"] == pytest.approx(plain[0]["loss"], rel=0.02)
    assert ours[1]["loss"] < ours[0]["loss"]
    assert plain[1]["loss"] < plain[0]["loss"]
    # ResNet-18 to layer3: multiplications of an image at stride 2, 4, 8 and 16, three convolutions
    # of each later layer at the same size and one that doubles the channels, with its skip.
    stem = 3 * 7 * 7 * 64 * 32 * 32
    layer = 64 * 64 * 9 * 16 * 16
    forward = stem + 4 * layer + 2 * (3 * layer + layer // 2 + layer // 18)
    train, held_out = found["images"]
    flop = 2 * ((3 * forward - stem) * train + forward * held_out)
    assert found["gflop"] == pytest.approx(flop / 1e9)
    assert found["least_seconds"] == pytest.approx(
        found["gflop"] / found["matrix_gflop_per_second"]
    )


def test_a_script_that_computes_something_else_is_refused(
    data_root: Path, teacher_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = PlainScript.run_epoch
    monkeypatch.setattr(PlainScript, "run_epoch", lambda *arguments: 2 * plain(*arguments))
    out = tmp_path / "found.json"
    code, output = run(data_root / "weave/train/good", teacher_file, out)
    assert code == 1
    assert "does not compute the same" in output
    assert not out.exists()
