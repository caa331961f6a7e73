"""The record: a line of JSON a verdict, on the disk before anyone is told, each bound to the last.

A folder holds a file a day, `verdicts-2026-05-04.jsonl` by UTC. The field `previous` of a line is
the SHA-256 of the line before it, over midnight too, so that a line that was changed, removed or
moved is noticed. `last.json` holds the hash and the number of the last line, so that a cut end is.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from stpm.runtime.errors import DataError
from stpm.runtime.live.verdict import Entry
from stpm.runtime.partial import partial_path

PATTERN = "verdicts-*.jsonl"
LAST = "last.json"
ORIGIN = "0" * 64
"""What the first line of all is bound to."""


@dataclass(frozen=True)
class Line:
    """A line of a record.

    Attributes:
        place: file and number, such as "verdicts-2026-05-04.jsonl:17".
        entry: what it says.
        problem: what is wrong with it; "" for a sound one.
    """

    place: str
    entry: Entry
    problem: str = ""


class Record:
    """A record that is written; one process at a time."""

    def __init__(self, folder: Path) -> None:
        """Open a record, or begin one; what a killed process left of a line is removed.

        Args:
            folder: made if it is missing.

        Raises:
            DataError: the record is cut or was altered.
        """
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.torn = _remove_torn_line(folder)
        self._previous, self._count = ORIGIN, 0
        self.images: set[str] = set()
        """What was recorded before."""
        for line in read_record(folder):
            if line.problem:
                raise DataError(
                    f"{folder}: {line.place} {line.problem}; keep this record, and name another "
                    "folder with --record."
                )
            self._previous, self._count = line_hash(_as_line(line.entry)), self._count + 1
            self.images.add(str(line.entry["image"]))
        self._file: IO[bytes] | None = None
        self._sizes = {path.name: path.stat().st_size for path in folder.glob(PATTERN)}
        self._size = 0
        self._partial = partial_path(folder / LAST)
        self._tell()

    def append(self, entry: Mapping[str, Any]) -> Entry:
        """Write an entry to the disk, and return it as it stands there.

        Args:
            entry: with a `time`, ISO 8601 in UTC.

        Raises:
            OSError: the disk refuses it, and what it took is removed.
            DataError: another process writes this record, too.
        """
        bound = dict(entry) | {"previous": self._previous}
        line = _as_line(bound)
        file = self._open(str(entry["time"])[:10])
        if os.fstat(file.fileno()).st_size != self._size:
            raise DataError(
                f"{file.name}: somebody else has written into this record; give each station its "
                "own folder with --record."
            )
        try:
            file.write(line)
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
        path = self._folder / PATTERN.replace("*", day)
        if self._file is None or self._file.name != str(path):
            self.close()
            self._file = path.open("ab", buffering=0)
            self._size = self._sizes.get(path.name, 0)
        return self._file

    def _tell(self) -> None:
        """Say how far the record goes; it may lag a line behind, and is never ahead."""
        text = json.dumps({"lines": self._count, "sha256": self._previous})
        self._partial.write_text(text, encoding="utf-8")
        self._partial.replace(self._folder / LAST)


def read_record(path: Path) -> Iterator[Line]:
    """Read a record, and hold each line against the one before it.

    Args:
        path: the folder, or one of its files, whose first line is then bound to an unknown one.

    Yields:
        The lines; one that does not fit has a `problem`, and ends the reading.

    Raises:
        DataError: there is no record.
    """
    files = sorted(path.glob(PATTERN)) if path.is_dir() else [path]
    if not path.exists():
        raise DataError(f"{path}: there is no record; check the path.")
    previous = ORIGIN if path.is_dir() else None
    hashes = set()
    for file in files:
        for number, content in enumerate(file.read_bytes().splitlines(keepends=True), 1):
            entry, problem = _checked(content, previous)
            yield Line(f"{file.name}:{number}", entry, problem)
            if problem:
                return
            previous = line_hash(content)
            hashes.add(previous)
    if path.is_dir() and (path / LAST).exists():
        last = json.loads((path / LAST).read_text(encoding="utf-8"))
        if last["lines"] and last["sha256"] not in hashes:
            place = f"{files[-1].name if files else LAST}: end"
            lines = f"{last['lines']} lines were written, {len(hashes)} are there"
            yield Line(place, {}, f"is cut: {lines}")


def line_hash(line: bytes) -> str:
    """Return what the next line is bound to."""
    return hashlib.sha256(line).hexdigest()


def _as_line(entry: Mapping[str, Any]) -> bytes:
    return json.dumps(entry, ensure_ascii=True, separators=(",", ":")).encode() + b"\n"


def _checked(content: bytes, previous: str | None) -> tuple[Entry, str]:
    try:
        entry = json.loads(content)
    except ValueError:
        return {}, "is no JSON: it was altered or cut"
    if not isinstance(entry, dict) or not {"image", "verdict", "previous"} <= entry.keys():
        return {}, "is no verdict: it was altered"
    if previous is not None and entry["previous"] != previous:
        return entry, "is not bound to the line before it: a line was altered, removed or moved"
    if _as_line(entry) != content:
        return entry, "was altered"
    return entry, ""


def _remove_torn_line(folder: Path) -> bool:
    """Cut off the end of the last file that is no whole line: nobody was told of it."""
    files = sorted(folder.glob(PATTERN))
    if not files:
        return False
    content = files[-1].read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole == len(content):
        return False
    os.truncate(files[-1], whole)
    return True
