"""Images, flags and a finished run of stpm-train."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from fit_runs import epochs
from train_cli import flags_for, succeed
from typer.testing import Result

from stpm.train import run_files


@pytest.fixture
def good(data_root: Path, tmp_path: Path) -> Path:
    """A copy of the good images, to change."""
    return Path(shutil.copytree(data_root / "weave/train/good", tmp_path / "parts"))


@pytest.fixture
def flags(teacher_file: Path, tmp_path: Path) -> list[str]:
    """What a quick run needs besides its images."""
    return flags_for(teacher_file, tmp_path / "part.pt")


@pytest.fixture(scope="session")
def finished(
    data_root: Path, teacher_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Result]:
    """The checkpoint of a run of three epochs, beside the log of an older one."""
    out = tmp_path_factory.mktemp("finished") / "part.pt"
    run_files.log_path(out).write_text("of an older run\n")
    good = data_root / "weave/train/good"
    return out, succeed("--good", good, *flags_for(teacher_file, out), "--epochs", 3)


@pytest.fixture(scope="session")
def uninterrupted(
    tmp_path_factory: pytest.TempPathFactory, data_root: Path, teacher_file: Path
) -> Path:
    """The checkpoint of a run of three epochs, through the line."""
    out = tmp_path_factory.mktemp("uninterrupted") / "weave.pt"
    assert [r.epoch for r in epochs(data_root, teacher_file, out)] == [1, 2, 3]
    return out
