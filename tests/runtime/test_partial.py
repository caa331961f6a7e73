"""What killed processes leave behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from stpm.runtime.partial import partial_path

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows keeps what is left")


@pytest.fixture
def dead() -> int:
    """The number of a process that is no more."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid


def test_copies_of_dead_processes_are_removed_and_no_others(tmp_path: Path, dead: int) -> None:
    path = tmp_path / "part[1].pt"
    file, folder = (tmp_path / f".part[1].pt.{dead}.{kind}" for kind in ("partial", "old"))
    file.touch()
    folder.mkdir()
    (folder / "inside").touch()
    kept = [f".part[1].pt.{os.getppid()}.partial", f".other.pt.{dead}.partial", ".part[1].pt.x.old"]
    for name in kept:
        (tmp_path / name).touch()
    assert partial_path(path) == tmp_path / f".part[1].pt.{os.getpid()}.partial"
    assert not file.exists()
    assert folder.exists()
    partial_path(path, "old")
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(kept)


def test_a_folder_that_does_not_exist_has_nothing_left(tmp_path: Path) -> None:
    assert partial_path(tmp_path / "no/part.pt").parent == tmp_path / "no"
