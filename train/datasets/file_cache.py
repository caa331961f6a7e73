"""Keep what was read of files that hold many images, as these are asked for one by one."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from stpm.runtime.errors import DataError

Content = TypeVar("Content")
Reader = Callable[[Path], Content]


def cached_by_file(count: int) -> Callable[[Reader[Content]], Reader[Content]]:
    """Let a reader keep the content of the last few files until they change.

    What it returns is shared, so it should be read-only.

    Args:
        count: of files.

    Raises:
        DataError: by the reader, where a file is missing.
    """

    def decorate(read: Reader[Content]) -> Reader[Content]:
        lock = threading.Lock()

        @functools.lru_cache(maxsize=count)
        def read_version(path: Path, _: tuple[int, int]) -> Content:
            return read(path)

        @functools.wraps(read)
        def look_up(path: Path) -> Content:
            try:
                stat = path.stat()
            except FileNotFoundError:
                raise DataError(f"{path}: there is no such file; check the path.") from None
            with lock:  # threads that want the same file are not to read it each
                return read_version(path, (stat.st_size, stat.st_mtime_ns))

        return look_up

    return decorate
