"""The benchmark of libstpm, with a program that answers what it is told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from stpm.benchmarks.measure.libstpm import FRAME, main

ANSWERS = """#!/bin/sh
while read -r command height rest; do
  case "$command $height" in
    "run 64") echo "3.5 3 0" ;;
    run*) echo "5 3 2" ;;
    resize*) echo 0.25 ;;
  esac
done
"""


def program(folder: Path, text: str) -> Path:
    path = folder / "stpm_bench"
    path.write_text(text)
    path.chmod(0o755)
    return path


def test_medians_of_what_the_program_answers(tmp_path: Path, bundle_path: Path) -> None:
    asked, out = program(tmp_path, ANSWERS), tmp_path / "out.json"
    arguments = [str(bundle_path), "--program", str(asked), "--rounds", "3", "--out", str(out)]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.stderr
    result = json.loads(out.read_text())
    medians = result["median"]
    assert medians["input_size_overhead_ms"] == 0.5
    assert medians["frame_overhead_ms"] == 2
    assert result["overhead_share_of_engine"] == 0.5 / 3
    assert result["largest_allocations_a_run"] == 0
    assert result["rounds"] == len(result["raw"]["resize_libstpm_ms"]) == 3
    assert result["frame_size"] == list(FRAME)
    assert result["input_size"] == [64, 64]
    assert medians["resize_libstpm_ms"] == 0.25
    assert medians["resize_pillow_ms"] > 0


@pytest.mark.parametrize(
    ("text", "message"),
    [(None, "there is no such program"), ("#!/bin/sh\nexit 1\n", "stpm_bench failed")],
)
def test_program_that_cannot_be_asked(
    tmp_path: Path, bundle_path: Path, text: str | None, message: str
) -> None:
    asked = tmp_path / "absent" if text is None else program(tmp_path, text)
    out = tmp_path / "out.json"
    arguments = [str(bundle_path), "--program", str(asked), "--out", str(out)]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 1
    assert message in done.stderr
    assert not out.exists()
