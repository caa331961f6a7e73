"""The record: lines bound by SHA-256, torn ones removed, altered ones named."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
from stations import entry

from stpm.runtime.errors import DataError
from stpm.runtime.live.record import LAST, Record, read_record


def write(folder: Path, count: int, first: int = 0) -> list[bytes]:
    record = Record(folder)
    for number in range(first, first + count):
        record.append(entry(number))
    record.close()
    return [line for path in sorted(folder.glob("*.jsonl")) for line in path.open("rb")]


def problems(path: Path) -> list[str]:
    return [f"{line.place} {line.problem}" for line in read_record(path) if line.problem]


def test_each_line_is_bound_to_the_one_before(tmp_path: Path) -> None:
    lines = write(tmp_path, 3)
    lines = write(tmp_path, 2, first=3)  # a second station goes on
    previous = "0" * 64
    for number, line in enumerate(lines):
        values = json.loads(line)
        assert values.pop("previous") == previous
        assert values == entry(number)
        previous = hashlib.sha256(line).hexdigest()
    assert json.loads((tmp_path / LAST).read_text()) == {"lines": 5, "sha256": previous}
    assert problems(tmp_path) == []


def test_a_day_has_a_file_and_the_chain_goes_over_midnight(tmp_path: Path) -> None:
    record = Record(tmp_path)
    for day in ("2026-05-04", "2026-05-05"):
        record.append(entry() | {"time": f"{day}T00:00:00+00:00"})
    record.close()
    first, second = sorted(tmp_path.glob("*.jsonl"))
    assert (first.name, second.name) == ("verdicts-2026-05-04.jsonl", "verdicts-2026-05-05.jsonl")
    bound = json.loads(second.read_bytes())["previous"]
    assert bound == hashlib.sha256(first.read_bytes()).hexdigest()
    # The first day may be moved away; a day between may not.
    third = Record(tmp_path)
    third.append(entry() | {"time": "2026-05-06T00:00:00+00:00"})
    third.close()
    content = second.read_bytes()
    second.unlink()
    assert "is not bound to the line before it" in problems(tmp_path)[0]
    second.write_bytes(content)
    first.unlink()
    assert problems(tmp_path) == []
    assert [line.number for line in read_record(tmp_path)] == [2, 3]
    going_on = Record(tmp_path)
    going_on.append(entry() | {"time": "2026-05-06T00:00:01+00:00"})
    going_on.close()
    assert json.loads((tmp_path / LAST).read_text())["lines"] == 4


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda lines: lines[:1] + lines[2:], "verdicts-2026-05-04.jsonl:2 is not bound"),
        (lambda lines: [lines[1], lines[0], *lines[2:]], ":1 is not bound"),
        (lambda lines: [lines[0].replace(b'"ok"', b'"no"'), *lines[1:]], ":2 is not bound"),
        (lambda lines: [*lines[:3], lines[3].replace(b":", b": ")], ":4 was altered"),
        (lambda lines: lines[:3], "end is cut: 4 lines were written, 3 are there"),
        (lambda lines: [*lines[:3], lines[3].replace(b"0.5", b"0.6")], "end is cut"),
        (lambda lines: [b"{}\n", *lines[1:]], ":1 is no verdict"),
        (lambda lines: [b"nonsense\n", *lines[1:]], ":1 is no JSON"),
    ],
)
def test_what_was_changed_is_named(tmp_path: Path, change: object, says: str) -> None:
    lines = write(tmp_path, 4)
    (path,) = tmp_path.glob("*.jsonl")
    path.write_bytes(b"".join(change(lines)))  # type: ignore[operator]
    found = problems(tmp_path)
    assert len(found) == 1
    assert says in found[0]
    with pytest.raises(DataError, match="keep this record, and choose another folder"):
        Record(tmp_path)


@pytest.mark.parametrize("cut", [1, 40, -1])
def test_a_torn_last_line_is_removed(tmp_path: Path, cut: int) -> None:
    lines = write(tmp_path, 3)
    (path,) = tmp_path.glob("*.jsonl")
    # As a process leaves it that was killed while it wrote a fourth.
    path.write_bytes(b"".join(lines) + lines[0][:cut])
    record = Record(tmp_path)
    assert record.torn
    assert path.read_bytes() == b"".join(lines)
    record.append(entry(9))
    record.close()
    assert problems(tmp_path) == []


def test_a_second_writer_is_refused(tmp_path: Path) -> None:
    first, second = Record(tmp_path), Record(tmp_path)
    first.append(entry(0))
    first.append(entry(1))
    with pytest.raises(DataError, match="another process has written into this record"):
        second.append(entry(2))


FILL = """
import resource, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from stations import entry
from stpm.runtime.live.record import Record
record = Record(Path(sys.argv[1]))
told = [record.append(entry(0))]
(file,) = Path(sys.argv[1]).glob("*.jsonl")
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
limit = file.stat().st_size + 60  # room for a part of the next line
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    record.append(entry(1))
    print("told")
except OSError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit of a file's size")
def test_a_disk_that_takes_half_a_line(tmp_path: Path) -> None:
    support = Path(__file__).parents[2] / "support"
    arguments = [sys.executable, "-c", FILL, str(tmp_path), str(support)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    assert "No space left on device" in done.stdout or "File too large" in done.stdout
    assert [line.entry["image"] for line in read_record(tmp_path)] == ["part0.png"]
    (path,) = tmp_path.glob("*.jsonl")
    assert path.read_bytes().endswith(b"\n")


def test_there_is_no_record(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no record"):
        list(read_record(tmp_path / "absent"))
