"""Memory after a burst of images, by what the system says of the process."""

from __future__ import annotations

import subprocess
import sys

import pytest

BURST = """
from pathlib import Path
from stpm.runtime.live.memory import give_back

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

before = resident()
blocks = [bytes(b"x") * 50_000 for _ in range(2000)]
full = resident()
blocks = blocks[-1:]  # the last block holds up the heap
left = resident()
give_back()
print(full - before, left - before, resident() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")
def test_what_a_burst_left_goes_back() -> None:
    done = subprocess.run([sys.executable, "-c", BURST], capture_output=True, text=True, check=True)
    full, left, after = map(int, done.stdout.split())
    assert full > 90e6
    if left < 0.5 * full:
        pytest.skip("this C library gives it back by itself")
    assert after < 0.1 * full
