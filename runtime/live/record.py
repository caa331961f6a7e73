"""The record: a line of JSON a verdict, on the disk before anyone is told, each bound to the last.

A folder holds a file a day, `verdicts-2026-05-04.jsonl` by UTC. The field `previous` of a line is
the SHA-256 of the line before it, over midnight too, so that a line that was changed, removed or
moved is noticed. `last.json` holds the hash and the number of the last line, so that a cut end is.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from stpm.runtime.errors import DataError
from stpm.runtime.live.read_record import (
    LAST,
    ORIGIN,
    PATTERN,
    End,
    as_line,
    find_end,
    line_hash,
    lines_backwards,
    read_record,
    record_files,
)
from stpm.runtime.live.verdict import Entry
from stpm.runtime.partial import partial_path

SETTLES = 2.0
"""Seconds in which programs set rights and times of a file that they have closed."""


class Record:
    """A record that is written; one process at a time."""

    def __init__(self, folder: Path) -> None:
        """Open a record, or begin one; what a killed process left of a line is removed.

        Only its end is read: `stpm-run --replay` checks all of it.

        Args:
            folder: made if it is missing.

        Raises:
            DataError: the record's end is cut or was altered.
        """
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.torn = _remove_torn_line(folder)
        end = find_end(folder) or _read_through(folder)
        self._previous, self._count = end.sha256, end.lines
        self._file: IO[bytes] | None = None
        self._sizes = {path.name: path.stat().st_size for path in record_files(folder)}
        self._name = max(self._sizes, default="")
        self._size = 0
        self._partial = partial_path(folder / LAST)
        self._tell()

    def recorded(self, images: Mapping[str, float]) -> set[str]:
        """Say which images have their verdict, by the days since the oldest of them.

        Args:
            images: by their names in the record, with the time when each came, in seconds since
                1970: a verdict from before is of another image that had the name.

        Raises:
            DataError: the record was altered.
        """
        came = {name: seconds - SETTLES for name, seconds in images.items()}
        if not came:
            return set()
        first = PATTERN.replace("*", _utc(min(came.values())).date().isoformat())
        found: set[str] = set()
        for file in record_files(self.folder):
            if file.name < first:
                continue
            with file.open("rb") as lines:
                for number, line in enumerate(lines, 1):
                    try:
                        entry = json.loads(line)
                        name, time = entry["image"], datetime.fromisoformat(entry["time"])
                        if name in came and time >= _utc(came[name]):
                            found.add(name)
                    except (ValueError, KeyError, TypeError):
                        raise _altered(self.folder, f"{file.name}:{number} was altered") from None
        return found

    def append(self, entry: Mapping[str, Any]) -> Entry:
        """Write an entry to the disk, and return it as it stands there.

        Args:
            entry: with a `time`, ISO 8601 in UTC.

        Raises:
            OSError: the disk refuses it, and what it took is removed.
            DataError: another process writes this record, too.
        """
        bound = dict(entry) | {"previous": self._previous}
        line = as_line(bound)
        file = self._open(str(entry["time"])[:10])
        if os.fstat(file.fileno()).st_size != self._size:
            raise DataError(
                f"{file.name}: another process has written into this record; give each "
                "station its own folder with --record."
            )
        try:
            # A disk that is nearly full takes a part, and says nothing.
            if file.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), file.name)
            os.fsync(file.fileno())
        except OSError:
            os.truncate(file.name, self._size)
            raise
        self._size += len(line)
        self._previous, self._count = line_hash(line), self._count + 1
        self._tell()
        return bound

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _open(self, day: str) -> IO[bytes]:
        # Never a day back: a camera may tell of yesterday's last frame after another of today's
        # first, and lines are bound in the order of the files.
        self._name = max(self._name, PATTERN.replace("*", day))
        path = self.folder / self._name
        if self._file is None or self._file.name != str(path):
            self.close()
            self._file = path.open("ab", buffering=0)
            _sync_folder(self.folder)
            self._size = self._sizes.get(path.name, 0)
        return self._file

    def _tell(self) -> None:
        """Say how far the record goes; it may lag behind, and is never ahead."""
        text = json.dumps({"lines": self._count, "sha256": self._previous})
        self._partial.write_text(text, encoding="utf-8")
        self._partial.replace(self.folder / LAST)


def _read_through(folder: Path) -> End:
    """Find the end of a record by all its lines, or what is wrong with it."""
    end = End(ORIGIN, 0)
    for line in read_record(folder):
        if line.problem:
            raise _altered(folder, f"{line.place} {line.problem}")
        end = End(line_hash(as_line(line.entry)), line.number)
    return end


def _altered(folder: Path, problem: str) -> DataError:
    return DataError(
        f"{folder}: {problem}; keep this record, and choose another folder with --record."
    )


def _utc(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _sync_folder(folder: Path) -> None:
    """Bring a new file's name to the disk, where a folder can be opened for it."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _remove_torn_line(folder: Path) -> bool:
    """Cut off the end of the last file that is no whole line: nobody was told of it."""
    files = record_files(folder)
    line = next(lines_backwards(files[-1]), b"\n") if files else b"\n"
    if line.endswith(b"\n"):
        return False
    os.truncate(files[-1], files[-1].stat().st_size - len(line))
    return True
