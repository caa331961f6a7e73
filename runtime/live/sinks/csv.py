"""A table of verdicts, a row each, that grows."""

from __future__ import annotations

import csv
from pathlib import Path

from stpm.runtime.live.verdict import Event

COLUMNS = ("time", "camera", "image", "verdict", "score", "threshold", "sha256", "error")


class CsvSink:
    """Appends to a file; a new one begins with the names of the columns."""

    wants_images = False

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a", newline="", encoding="utf-8")
        self._rows = csv.DictWriter(self._file, COLUMNS, restval="", extrasaction="ignore")
        if self._file.tell() == 0:
            self._rows.writeheader()

    def send(self, event: Event) -> None:
        """Write a row."""
        self._rows.writerow(event.entry)
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def open_sink(address: str) -> CsvSink:
    """Open "csv:FILE"."""
    return CsvSink(Path(address.partition(":")[2]))
