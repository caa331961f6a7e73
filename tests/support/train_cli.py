"""Run stpm-train in the process, and say what is expected of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from typer.testing import CliRunner, Result

from stpm.train import run_files
from stpm.train.cli import main


def flags_for(teacher_file: Path, out: Path) -> list[str]:
    return [
        *("--out", str(out), "--teacher-weights", str(teacher_file)),
        *("--input-size", "32", "--epochs", "2", "--batch-size", "5", "--learning-rate", "0.1"),
        *("--device", "cpu", "--precision", "fp32"),
    ]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments], env={"COLUMNS": "100"})


def succeed(*arguments: object) -> Result:
    result = run(*arguments)
    assert result.exit_code == 0, result.stderr
    return result


def refuse(*arguments: object) -> str:
    """Exit code 1, one sentence on stderr after the notes, and nothing on stdout."""
    result = run(*arguments)
    assert result.exit_code == 1, result.output
    assert isinstance(result.exception, SystemExit)
    assert result.stdout == ""
    *_, last = result.stderr.splitlines()
    assert last.startswith("error: ")
    assert last.endswith(".")
    assert result.stderr.count("error: ") == 1
    return last


def refuse_usage(*arguments: object) -> str:
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    return " ".join(result.stderr.replace("│", " ").split())


def log_of(checkpoint: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in run_files.log_path(checkpoint).read_text().splitlines()]
