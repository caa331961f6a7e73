"""Reading a record, from its first line on or from its last one back, in bounded memory."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stpm.runtime.errors import DataError
from stpm.runtime.live.verdict import Entry

PATTERN = "verdicts-*.jsonl"
LAST = "last.json"
ORIGIN = "0" * 64
"""What the first line of all is bound to."""
_CHUNK = 1 << 16


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


@dataclass(frozen=True)
class End:
    """How far a record goes.

    Attributes:
        sha256: of its last line.
        lines: that were ever written.
    """

    sha256: str
    lines: int


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
    files = record_files(path) if path.is_dir() else [path]
    last = read_last(path) if path.is_dir() else None
    number, found = _lines_before(files, last), False
    previous: str | None = None
    for file in files:
        for in_file, content in enumerate(_lines([file]), 1):
            number += 1
            entry, problem = _checked(content, previous if number > 1 else ORIGIN)
            yield Line(f"{file.name}:{in_file}", number, entry, problem)
            if problem:
                return
            previous = line_hash(content)
            found = found or (last is not None and previous == last.sha256)
    if last is not None and last.lines and not found:
        place = f"{files[-1].name if files else LAST}: end"
        lines = f"{last.lines} lines were written, {number} are there"
        yield Line(place, number, {}, f"is cut: {lines}")


def find_end(folder: Path) -> End | None:
    """Find the end of a record by its lines from the last one back to that of last.json.

    Returns:
        The end; None where they are not bound to each other, or nothing says how many there are.
    """
    last = read_last(folder)
    if last is None:
        return None
    end, after, expected = "", 0, None
    for file in reversed(record_files(folder)):
        for content in lines_backwards(file):
            digest = line_hash(content)
            entry, problem = _checked(content, None)
            if problem or digest != (expected or digest):
                return None
            end = end or digest
            if digest == last.sha256:
                return End(end, last.lines + after)
            expected, after = str(entry["previous"]), after + 1
    # A process that was killed after its very first line.
    return End(end or ORIGIN, after) if last.sha256 == (expected or ORIGIN) else None


def record_files(folder: Path) -> list[Path]:
    """List a record's files, a day each."""
    return sorted(folder.glob(PATTERN))


def read_last(folder: Path) -> End | None:
    """Read how far a record went when it was last said; None where that is not known.

    A power cut may leave an older `last.json` behind, or on some file systems an empty one.
    """
    try:
        values = json.loads((folder / LAST).read_bytes())
        return End(str(values["sha256"]), int(values["lines"]))
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        return None


def lines_backwards(file: Path) -> Iterator[bytes]:
    """Yield a file's lines from the last to the first, each with its end."""
    with file.open("rb") as stream:
        position, begun = stream.seek(0, os.SEEK_END), b""
        while position > 0:
            size = min(_CHUNK, position)
            position = stream.seek(position - size)
            content = stream.read(size) + begun
            whole = (content.find(b"\n") + 1 or len(content)) if position else 0
            begun = content[:whole]
            yield from reversed(io.BytesIO(content[whole:]).readlines())


def line_hash(line: bytes) -> str:
    """Return what the next line is bound to."""
    return hashlib.sha256(line).hexdigest()


def as_line(entry: Mapping[str, Any]) -> bytes:
    """Return an entry as it stands in the record."""
    return json.dumps(entry, ensure_ascii=True, separators=(",", ":")).encode() + b"\n"


def _lines(files: Sequence[Path]) -> Iterator[bytes]:
    for file in files:
        with file.open("rb") as stream:
            yield from stream


def _lines_before(files: Sequence[Path], last: End | None) -> int:
    """Count the lines of days that were moved away: those that were written and are not there."""
    try:
        is_first = json.loads(next(_lines(files), b""))["previous"] == ORIGIN
    except (ValueError, KeyError, TypeError):
        return 0
    if is_first or last is None:
        return 0
    place = 0
    for number, line in enumerate(_lines(files), 1):
        if line_hash(line) == last.sha256:
            place = number
    return last.lines - place if place else 0


def _checked(content: bytes, previous: str | None) -> tuple[Entry, str]:
    try:
        entry = json.loads(content)
    except ValueError:
        return {}, "is no JSON: it was altered or cut"
    if not isinstance(entry, dict) or not {"image", "verdict", "previous"} <= entry.keys():
        return {}, "is no verdict: it was altered"
    if previous is not None and entry["previous"] != previous:
        return entry, "is not bound to the line before it: a line was altered, removed or moved"
    if as_line(entry) != content:
        return entry, "was altered"
    return entry, ""
