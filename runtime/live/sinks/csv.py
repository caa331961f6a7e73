"""A table of verdicts, a row each, that grows."""

from __future__ import annotations

import csv
import errno
import io
import os
from pathlib import Path

from stpm.runtime.live.verdict import Entry, Event

COLUMNS = ("time", "camera", "image", "verdict", "score", "threshold", "sha256", "error")


class CsvSink:
    """Appends to a file; a new one begins with the names of the columns."""

    wants_images = False

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab", buffering=0)
        if self._file.tell() == 0:
            self._append(dict(zip(COLUMNS, COLUMNS, strict=True)))

    def send(self, event: Event) -> None:
        """Write a row, whole or not at all."""
        self._append(event.entry)

    def _append(self, entry: Entry) -> None:
        text = io.StringIO(newline="")
        csv.DictWriter(text, COLUMNS, restval="", extrasaction="ignore").writerow(entry)
        row = text.getvalue().encode()
        size = os.fstat(self._file.fileno()).st_size
        try:
            # A disk that is nearly full takes a part, and says nothing.
            if self._file.write(row) != len(row):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self._file.name)
        except OSError:
            self._file.truncate(size)
            raise

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def open_sink(address: str) -> CsvSink:
    """Open "csv:FILE"."""
    return CsvSink(Path(address.partition(":")[2]))
