"""Power and memory of the GPU as nvidia-smi tells them; None where it does not."""

from __future__ import annotations

import shutil
import subprocess


def power_w() -> float | None:
    """Return the power that the first GPU draws, in watts."""
    return _query("power.draw")


def used_bytes() -> int | None:
    """Return the first GPU's memory in use, by all programs."""
    used = _query("memory.used")
    return None if used is None else int(used * 2**20)


def _query(field: str) -> float | None:
    if shutil.which("nvidia-smi") is None:
        return None
    command = ["nvidia-smi", f"--query-gpu={field}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
        return float(done.stdout.splitlines()[0])
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None
