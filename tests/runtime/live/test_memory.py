"""Memory after a burst of images, by what the system says of the process."""

from __future__ import annotations

import subprocess
import sys

import pytest

BURST = """
from pathlib import Path
from stpm.runtime.live.memory import keep_large_blocks_apart

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

keep_large_blocks_apart()
bytes(b"x") * 30_000_000  # freed: by itself the C library would now keep smaller ones in the heap
before = resident()
blocks = [bytes(b"x") * 4_000_000 for _ in range(50)]
full = resident()
blocks = blocks[-1:]  # the last one would hold up the heap
print(full - before, resident() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")
def test_what_a_burst_took_goes_back() -> None:
    done = subprocess.run([sys.executable, "-c", BURST], capture_output=True, text=True, check=True)
    full, after = map(int, done.stdout.split())
    assert full > 190e6
    assert after < 8e6
