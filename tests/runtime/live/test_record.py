"""The record: lines bound by SHA-256, torn ones removed, altered ones named."""

from __future__ import annotations

import hashlib
import json
import random
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from stations import entry

from stpm.runtime.errors import DataError
from stpm.runtime.live import read_record as read_record_module
from stpm.runtime.live.read_record import LAST, lines_backwards, read_record
from stpm.runtime.live.record import Record

KILLS = 100


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


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda lines: lines[:3], "end is cut: 4 lines were written, 3 are there"),
        (lambda lines: [*lines[:3], lines[3].replace(b"0.5", b"0.6")], "end is cut"),
        (lambda lines: [*lines[:3], lines[3].replace(b":", b": ")], ":4 was altered"),
        (lambda lines: [*lines[:2], lines[3], lines[2]], ":3 is not bound"),
    ],
)
def test_a_changed_end_is_noticed_at_the_start(tmp_path: Path, change: object, says: str) -> None:
    lines = write(tmp_path, 4)
    (path,) = tmp_path.glob("*.jsonl")
    path.write_bytes(b"".join(change(lines)))  # type: ignore[operator]
    with pytest.raises(DataError, match=f"{says}.*; keep this record, and choose another folder"):
        Record(tmp_path)
    assert path.read_bytes() == b"".join(change(lines))  # type: ignore[operator]


def test_a_start_reads_the_end_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = write(tmp_path, 600)
    monkeypatch.setattr(read_record_module, "line_hash", counted := Counted())
    record = Record(tmp_path)
    record.append(entry(600))
    record.close()
    assert counted.calls == 1
    assert problems(tmp_path) == []
    assert json.loads((tmp_path / LAST).read_text())["lines"] == 601
    (path,) = tmp_path.glob("*.jsonl")
    assert list(lines_backwards(path))[:0:-1] == lines


class Counted:
    """Counts the lines that are looked at."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, line: bytes) -> str:
        self.calls += 1
        return hashlib.sha256(line).hexdigest()


@pytest.mark.parametrize("said", [0, 1, 3, None, b"", b"[1]"])
def test_last_json_may_lag_behind_or_be_missing(tmp_path: Path, said: int | bytes | None) -> None:
    """As a power cut may leave it, or a kill between a line and its number."""
    lines = write(tmp_path, 4)
    if said is None:
        (tmp_path / LAST).unlink()
    elif isinstance(said, bytes):
        (tmp_path / LAST).write_bytes(said)
    else:
        digest = hashlib.sha256(lines[said - 1]).hexdigest() if said else "0" * 64
        (tmp_path / LAST).write_text(json.dumps({"lines": said, "sha256": digest}))
    write(tmp_path, 1, first=4)
    assert json.loads((tmp_path / LAST).read_text())["lines"] == 5
    assert problems(tmp_path) == []


def test_a_late_frame_of_yesterday_stays_in_order(tmp_path: Path) -> None:
    record = Record(tmp_path)
    times = ["04T23:59:58", "05T00:00:00", "04T23:59:59", "05T00:00:01"]
    for time in times[:3]:
        record.append(entry() | {"time": f"2026-05-{time}+00:00"})
    record.close()
    going_on = Record(tmp_path)
    going_on.append(entry() | {"time": f"2026-05-{times[3]}+00:00"})
    going_on.close()
    assert problems(tmp_path) == []
    assert [line.entry["time"][8:19] for line in read_record(tmp_path)] == times


def test_what_is_recorded_since_an_image_came(tmp_path: Path) -> None:
    record = Record(tmp_path)
    for day in (4, 5, 6):
        times = {"time": f"2026-05-0{day}T12:00:00+00:00"}
        record.append(entry(0) | times)
        record.append(entry(day) | times)
    noon = datetime(2026, 5, 5, 12, tzinfo=UTC).timestamp()
    asked = {"part0.png": noon, "part4.png": noon, "part5.png": noon, "absent.png": noon}
    assert record.recorded(asked) == {"part0.png", "part5.png"}
    assert record.recorded({"part4.png": noon - 86400}) == {"part4.png"}
    assert record.recorded({"part6.png": noon + 86400 + 3600}) == set()
    assert record.recorded({}) == set()


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


KILL = """
import json, os, random, select, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from stations import entry
from stpm.runtime.live.record import Record
draw = random.Random(int(sys.argv[4]))
for turn in range(int(sys.argv[3])):
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        record = Record(Path(sys.argv[1]))
        number = 0
        while True:
            told = record.append(entry(number) | {"turn": turn})
            os.write(writer, json.dumps(told).encode() + b"\\n")
            number += 1
    os.close(writer)
    with os.fdopen(reader, "rb") as told:
        content = os.read(reader, 1)  # it has begun
        select.select([], [], [], draw.uniform(0, 0.02))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        sys.stdout.buffer.write(content + told.read())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fork")
def test_a_hundred_kills_lose_no_line_that_was_told(tmp_path: Path) -> None:
    support = Path(__file__).parents[2] / "support"
    seed = random.randrange(1000)
    arguments = [sys.executable, "-c", KILL, str(tmp_path), str(support), str(KILLS), str(seed)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    told = [json.loads(line) for line in done.stdout.splitlines()]
    lines = list(read_record(tmp_path))
    assert [line.problem for line in lines if line.problem] == [], f"seed {seed}"
    recorded = [line.entry for line in lines]
    assert [e for e in recorded if e in told] == told, f"seed {seed}"
    # What was written as the kill came need not have been told: one line each time.
    assert len(recorded) - len(told) <= KILLS
    assert {e["turn"] for e in told} == set(range(KILLS))


def test_there_is_no_record(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no record"):
        list(read_record(tmp_path / "absent"))
