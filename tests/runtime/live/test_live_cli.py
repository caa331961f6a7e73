"""`stpm-live` as a process: it ends orderly, and a kill loses nothing."""

from __future__ import annotations

import json
import re
import shutil
import time
from pathlib import Path

import pytest
from stations import Live, wait_until
from typer.testing import CliRunner

from stpm.runtime.cli import main as run_main
from stpm.runtime.live.cli import main
from stpm.runtime.live.read_record import read_record
from stpm.runtime.live.record import SETTLES

KILLS = 8


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    folder = tmp_path / "inbox"
    folder.mkdir()
    return folder


def replay(bundle: Path, record: Path) -> tuple[int, str, str]:
    result = CliRunner().invoke(run_main, [str(bundle), "--replay", str(record)])
    return result.exit_code, result.stdout, result.stderr


def test_from_a_folder_to_the_record_and_back(
    bundle_path: Path, inbox: Path, good: list[Path], bad: list[Path]
) -> None:
    folder = inbox.parent
    arguments = (bundle_path, "--watch", inbox, "--move", folder / "done", "--sink", "csv:v.csv")
    live = Live(folder, *arguments, "--json", "--cycle-time", "10s")
    for path in (*good[:3], bad[0]):
        shutil.copy(path, inbox / f"{path.parent.name}{path.name}")
    wait_until(lambda: len(live.lines) == 4)
    assert live.end() == 0
    entries = [line.entry for line in read_record(folder / "record")]
    assert [json.loads(line) for line in live.lines] == entries
    assert "later than 10000 ms: 0 verdicts" in live.log
    assert "csv:v.csv: 4 delivered, 0 not" in live.log
    assert len((folder / "v.csv").read_text().splitlines()) == 5
    code, _, said = replay(bundle_path, folder / "record")
    assert (code, "4 as recorded, 0 different" in said) == (0, True)

    # An image that is another one now, one that is gone, and a line that was altered.
    first, second = (Path(entries[number]["image"]) for number in (0, 1))
    shutil.copy(bad[1], first)
    second.unlink()
    code, stdout, said = replay(bundle_path, folder / "record")
    assert code == 1
    assert "the image has other pixels than it had" in stdout
    assert "2 as recorded, 1 different, 1 image not kept" in said
    (path,) = (folder / "record").glob("*.jsonl")
    path.write_bytes(path.read_bytes().replace(b'"ok"', b'"no"', 1))
    code, stdout, _ = replay(bundle_path, folder / "record")
    assert code == 1
    assert "is not bound to the line before it" in stdout


def test_a_new_start_scores_what_has_come_since(
    bundle_path: Path, inbox: Path, good: list[Path], bad: list[Path]
) -> None:
    folder = inbox.parent
    for path in good[:2]:
        shutil.copy(path, inbox)
    live = Live(folder, bundle_path, inbox)
    wait_until(lambda: len(live.lines) == 2)
    assert live.end() == 0
    time.sleep(SETTLES)
    shutil.copy(bad[0], inbox / good[0].name)  # another image of a name that was recorded
    shutil.copy(good[2], inbox)
    live = Live(folder, bundle_path, inbox)
    wait_until(lambda: len(live.lines) == 4)
    assert live.end() == 0
    scored = [Path(line.entry["image"]).name for line in read_record(folder / "record")]
    assert scored == [path.name for path in (*good[:2], good[0], good[2])]


def test_kills_lose_no_verdict(bundle_path: Path, inbox: Path, good: list[Path]) -> None:
    """Whoever was told of a verdict finds it in the record, and each image has one."""
    folder = inbox.parent
    arguments = (bundle_path, "--watch", inbox, "--move", folder / "done", "--json")
    sent = 0
    for _ in range(KILLS):
        for path in good[:5]:
            shutil.copy(path, inbox / f"{sent}.png")
            sent += 1
        live = Live(folder, *arguments)
        before = len(live.lines)
        wait_until(lambda before=before, live=live: len(live.lines) > before + 1)
        live.kill()
    live = Live(folder, *arguments)
    wait_until(lambda: not list(inbox.iterdir()))
    assert live.end() == 0
    told, cut = [], 0
    for piece in re.split(r'(?={"time")', "".join(live.lines)):
        try:
            told.append(json.loads(piece))
        except json.JSONDecodeError:
            cut += piece != ""
    assert cut <= KILLS  # a kill may cut a line short, in which the next station writes on
    lines = list(read_record(folder / "record"))
    assert not any(line.problem for line in lines)
    recorded = [line.entry for line in lines]
    assert all(entry in recorded for entry in told)
    assert sorted(Path(entry["image"]).name for entry in recorded) == sorted(
        f"{number}.png" for number in range(sent)
    )
    assert len(list((folder / "done").iterdir())) == sent


def test_a_line_of_two_cameras(
    bundle_path: Path, inbox: Path, good: list[Path], bad: list[Path]
) -> None:
    folder = inbox.parent
    (folder / "side").mkdir()
    (folder / "line.toml").write_text(
        f"""
sinks = ["csv:verdicts.csv"]
cycle-time = "5s"

[[camera]]
name = "top"
source = "inbox"
bundle = {json.dumps(str(bundle_path))}

[[camera]]
name = "side"
source = "side"
bundle = {json.dumps(str(bundle_path))}
engine = "onnxruntime"
"""
    )
    live = Live(folder, "line.toml")
    shutil.copy(good[0], inbox)
    shutil.copy(bad[0], folder / "side")
    wait_until(lambda: len(live.lines) == 2)
    assert live.end() == 0
    entries = {line.entry["camera"]: line.entry for line in read_record(folder / "record")}
    assert entries["top"]["image"] == str(inbox / good[0].name)
    assert entries["side"]["image"] == str(folder / "side" / bad[0].name)


def refused(*arguments: object) -> str:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == 1, result.output
    (*_, last) = result.stderr.splitlines()
    assert last.startswith("error: ")
    return last


CAMERA = "[[camera]]\nname = 'a'\nsource = 'inbox'\nbundle = 'part.stpm'"


def test_what_cannot_run_is_said(bundle_path: Path, inbox: Path, tmp_path: Path) -> None:
    record = ("--record", tmp_path / "record")
    assert "expected a folder, a video file" in refused(bundle_path, "nowhere", *record)
    assert "expected csv:" in refused(bundle_path, inbox, "--sink", "fax:1", *record)
    assert "expected for example 250ms" in refused(
        bundle_path, inbox, "--cycle-time", "soon", *record
    )
    assert "expected a folder, a video file" in refused(bundle_path, "usb:front", *record)
    for source, option, value in (
        (inbox, "--trigger", "hardware"),
        (inbox, "--every", "1s"),
        (bundle_path / "manifest.json", "--move", "done"),
        ("genicam:any", "--move", "done"),
    ):
        said = refused(bundle_path, source, option, value, *record)
        assert f"got {option}, expected --" in said
    said = refused(bundle_path, inbox, "--keep", tmp_path / "frames", *record)
    assert "got --keep with folders alone" in said
    said = refused(bundle_path, inbox, "--page", "0.0.0.0:0", *record)
    assert "which other machines can reach, without --page-token" in said
    for content, says in (
        ("", "has no [[camera]]"),
        ("[[camera]]\nname = 'a'", "a camera lacks source, bundle"),
        ("speed = 1", "got speed = 1, expected record"),
        (f"when-behind = 'wait'\n{CAMERA}", "expected block, drop-oldest, drop-newest"),
        ("= 1", "is not TOML"),
    ):
        (tmp_path / "line.toml").write_text(content)
        assert says in refused(tmp_path / "line.toml")
