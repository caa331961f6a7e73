"""What the machine's processors did, as Linux counts it."""

from __future__ import annotations

import os
from pathlib import Path


def busy_seconds() -> float:
    """Return the processor seconds of the whole machine so far, waiting for disks left out."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    user, nice, system, _idle, _wait, irq, soft = map(int, fields[:7])
    return (user + nice + system + irq + soft) / os.sysconf("SC_CLK_TCK")
