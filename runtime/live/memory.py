"""Images that are let go of leave no hole in the heap: their memory goes back to the system."""

from __future__ import annotations

import ctypes
import sys
from contextlib import suppress

M_MMAP_THRESHOLD = -3
LARGE = 1 << 20
"""Bytes of a block that gets pages of its own."""


def keep_large_blocks_apart() -> None:
    """Give each large block pages of its own, where the C library lets one choose (glibc).

    By itself it does so for the first ones only, and raises the limit with each that is freed: what
    a backlog of images took, while a disk was full, then stays with the process in part.

    Source: mallopt(3).
    """
    if sys.platform == "linux":
        with suppress(AttributeError):  # another C library
            ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, LARGE)
