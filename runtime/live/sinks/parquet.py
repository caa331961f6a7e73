"""Verdicts as Parquet: a folder of files, each whole, as tools for tables read them."""

from __future__ import annotations

import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from stpm.runtime.live.verdict import Entry, Event
from stpm.runtime.partial import partial_path

ROWS = 10_000
SECONDS = 60.0
"""A file is written after so many rows or seconds, whichever comes first, and at the end."""
SCHEMA = pa.schema(
    [(name, pa.string()) for name in ("time", "camera", "image", "verdict", "sha256", "error")]
    + [(name, pa.float64()) for name in ("score", "threshold", "latency_ms")]
)


class ParquetSink:
    """Collects rows, and writes them as a file of their own."""

    wants_images = False

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._rows: list[Entry] = []
        self._taken: Event | None = None
        self._since = time.monotonic()

    def send(self, event: Event) -> None:
        """Take a row, once even where the disk then refuses the file; a full one is written."""
        if event is not self._taken:
            entry = event.entry
            row = {name: entry.get(name) for name in SCHEMA.names}
            stages = entry["latency_ms"].values()
            self._rows.append(row | {"latency_ms": sum(stages) if stages else None})
            self._taken = event
        if len(self._rows) >= ROWS or time.monotonic() - self._since > SECONDS:
            self._write()

    def close(self) -> None:
        """Write what is left."""
        self._write()

    def _write(self) -> None:
        if not self._rows:
            return
        name = str(self._rows[0]["time"]).replace(":", "").replace("+0000", "Z")
        path = self._folder / f"verdicts-{name}.parquet"
        partial = partial_path(path)
        pq.write_table(pa.Table.from_pylist(self._rows, SCHEMA), partial)
        partial.replace(path)
        self._rows = []
        self._since = time.monotonic()


def open_sink(address: str) -> ParquetSink:
    """Open "parquet:FOLDER"."""
    return ParquetSink(Path(address.partition(":")[2]))
