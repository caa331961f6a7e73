"""Memory that a burst of images leaves free in the heap goes back to the system."""

from __future__ import annotations

import ctypes
import sys
from contextlib import suppress


def give_back() -> None:
    """Return free memory to the system, where the C library offers that (glibc; else nothing).

    Source: malloc_trim(3).
    """
    if sys.platform == "linux":
        with suppress(AttributeError):  # musl has none
            ctypes.CDLL(None).malloc_trim(0)
