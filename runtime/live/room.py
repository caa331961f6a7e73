"""A folder within a limit of disk space: the oldest files go."""

from __future__ import annotations

import threading
from collections import deque
from pathlib import Path

BYTES_PER_MB = 10**6
NAMES = f"{'[0-9]' * 8}T{'[0-9]' * 12}Z-*.png"
"""As `time_stem` begins them: other files of the folder are somebody else's."""


class Room:
    """Counts the pictures of a folder by their names, which begin with their time."""

    def __init__(self, folder: Path, max_mb: float) -> None:
        """Begin with what is there.

        Args:
            folder: of the pictures, made if it is missing.
            max_mb: of all of them, in megabytes of 10^6 bytes.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._limit = int(max_mb * BYTES_PER_MB)
        self._lock = threading.Lock()
        self._files = deque((p.name, p.stat().st_size) for p in sorted(folder.glob(NAMES)))
        self._used = sum(size for _, size in self._files)

    def take(self, name: str, size_bytes: int) -> None:
        """Make room for a file that is about to be written, and count it."""
        with self._lock:
            while self._files and self._used + size_bytes > self._limit:
                oldest, freed = self._files.popleft()
                (self._folder / oldest).unlink(missing_ok=True)
                self._used -= freed
            self._files.append((name, size_bytes))
            self._used += size_bytes


def time_stem(time: str, camera: str) -> str:
    """Name a picture by its time, ISO 8601 in UTC, and its camera: names sort by time."""
    digits = "".join(sign for sign in time.replace("+00:00", "Z") if sign in "0123456789TZ")
    return f"{digits}-{camera}"
