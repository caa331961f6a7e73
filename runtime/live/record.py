"""The record: a line of JSON a verdict, on the disk before anyone is told, each bound to the last.

A folder holds a file a day, `verdicts-2026-05-04.jsonl` by UTC. The field `previous` of a line is
the SHA-256 of the line before it, over midnight too, so that a line that was changed, removed or
moved is noticed. `last.json` holds the hash and the number of the last line, so that a cut end is.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
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
        number: of all lines that were ever written, from 1.
        entry: what it says.
        problem: what is wrong with it; "" for a sound one.
    """

    place: str
    number: int
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
                    f"{folder}: {line.place} {line.problem}; keep this record, and choose "
                    "another folder with --record."
                )
            self._previous, self._count = line_hash(_as_line(line.entry)), line.number
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
        path = self._folder / PATTERN.replace("*", day)
        if self._file is None or self._file.name != str(path):
            self.close()
            self._file = path.open("ab", buffering=0)
            _sync_folder(self._folder)
            self._size = self._sizes.get(path.name, 0)
        return self._file

    def _tell(self) -> None:
        """Say how far the record goes; it may lag a line behind, and is never ahead."""
        text = json.dumps({"lines": self._count, "sha256": self._previous})
        self._partial.write_text(text, encoding="utf-8")
        self._partial.replace(self._folder / LAST)


def read_record(path: Path) -> Iterator[Line]:
    """Read a record, and hold each line against the one before it.

    Files of the first days may have been moved away: the first line that is there is bound to one
    that is not, and `Line.number` says how many those are.

    Args:
        path: the folder, or one of its files.

    Yields:
        The lines; one that does not fit has a `problem`, and ends the reading.

    Raises:
        DataError: there is no record.
    """
    if not path.exists():
        raise DataError(f"{path}: there is no record; check the path.")
    files = sorted(path.glob(PATTERN)) if path.is_dir() else [path]
    last = _last(path)
    number, found = _lines_before(files, last), False
    previous: str | None = None
    for file in files:
        for in_file, content in enumerate(file.read_bytes().splitlines(keepends=True), 1):
            number += 1
            entry, problem = _checked(content, previous if number > 1 else ORIGIN)
            yield Line(f"{file.name}:{in_file}", number, entry, problem)
            if problem:
                return
            previous = line_hash(content)
            found = found or previous == last.get("sha256")
    if last.get("lines") and not found:
        place = f"{files[-1].name if files else LAST}: end"
        lines = f"{last['lines']} lines were written, {number} are there"
        yield Line(place, number, {}, f"is cut: {lines}")


def _last(path: Path) -> dict[str, Any]:
    """Read how far a record goes; nothing of a single file, or of a record that has no line."""
    file = path / LAST
    if not path.is_dir() or not file.exists():
        return {}
    values = json.loads(file.read_text(encoding="utf-8"))
    return values if isinstance(values, dict) else {}


def _lines_before(files: Sequence[Path], last: Mapping[str, Any]) -> int:
    """Count the lines of days that were moved away: those that were written and are not there."""
    if not last or not files:
        return 0
    contents = [line for file in files for line in file.read_bytes().splitlines(keepends=True)]
    try:
        is_first = json.loads(contents[0])["previous"] == ORIGIN
    except (ValueError, IndexError, KeyError, TypeError):
        return 0
    place = [i for i, line in enumerate(contents, 1) if line_hash(line) == last.get("sha256")]
    return 0 if is_first or not place else int(last["lines"]) - place[-1]


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
    files = sorted(folder.glob(PATTERN))
    if not files:
        return False
    content = files[-1].read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole == len(content):
        return False
    os.truncate(files[-1], whole)
    return True
