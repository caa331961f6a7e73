"""Names for files that are being written; a process that was killed leaves none behind for long."""

from __future__ import annotations

import glob
import os
import shutil
import sys
from pathlib import Path


def partial_path(path: Path, kind: str = "partial") -> Path:
    """Name this process's unfinished copy of a file or folder, beside it.

    Copies that processes left which are no more are removed.
    """
    for leftover in leftovers(path, kind):
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)
    return path.with_name(f".{path.name}.{os.getpid()}.{kind}")


def leftovers(path: Path, kind: str) -> list[Path]:
    """List what dead processes left beside a file or folder."""
    pattern = f".{glob.escape(path.name)}.*.{kind}"
    found = path.parent.glob(pattern) if path.parent.is_dir() else ()
    return [p for p in found if _is_dead(p.name.removesuffix(f".{kind}").rpartition(".")[2])]


def _is_dead(process: str) -> bool:
    if not process.isdecimal() or sys.platform == "win32":
        return False  # Windows has no question that does not end the process
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        return False
    return False
