"""A table of verdicts, a row each, that grows."""

from __future__ import annotations

import csv
import errno
import io
import os
from pathlib import Path
from reprlib import repr as brief

from stpm.runtime.errors import DataError
from stpm.runtime.live.verdict import Entry, Event

COLUMNS = ("time", "camera", "image", "verdict", "score", "threshold", "sha256", "error")


class CsvSink:
    """Appends to a file; a new one begins with the names of the columns.

    Raises:
        DataError: the file has other columns.
    """

    wants_images = False

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a+b", buffering=0)
        if self._file.tell() == 0:
            self._append(dict(zip(COLUMNS, COLUMNS, strict=True)))
        else:
            self._check_header()

    def send(self, event: Event) -> None:
        """Write a row, whole or not at all."""
        self._append(event.entry)

    def _check_header(self) -> None:
        self._file.seek(0)
        header = self._file.read(1 << 10).partition(b"\n")[0].rstrip(b"\r").decode(errors="replace")
        if header != ",".join(COLUMNS):
            raise DataError(
                f"{self._file.name}: begins with {brief(header)}, expected a new file or the "
                f"columns {','.join(COLUMNS)}; choose another file."
            )

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
