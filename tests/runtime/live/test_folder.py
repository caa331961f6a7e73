"""A folder that fills: whole files alone, each once."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from stations import wait_until

from stpm.runtime.live.sources import SourceOptions
from stpm.runtime.live.sources.folder import FolderSource
from stpm.runtime.live.verdict import Frame


class Watch:
    """A source that is read in a thread, as a station does."""

    def __init__(self, folder: Path, options: SourceOptions) -> None:
        self.source = FolderSource(folder, options)
        self.frames: list[Frame] = []
        self.kept: list[str] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        for frame in self.source.frames(self._stop):
            self.kept.append(self.source.name_in_record(frame))
            self.source.done(frame)
            self.frames.append(frame)

    @property
    def names(self) -> list[str]:
        return [Path(frame.name).name for frame in self.frames]

    def end(self) -> None:
        self._stop.set()
        self._thread.join(10)


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    folder = tmp_path / "inbox"
    folder.mkdir()
    return folder


@pytest.fixture
def watches() -> Iterator[list[Watch]]:
    running: list[Watch] = []
    yield running
    for watch in running:
        watch.end()


def test_what_is_there_and_what_comes(inbox: Path, good: list[Path], watches: list[Watch]) -> None:
    shutil.copy(good[1], inbox)
    shutil.copy(good[0], inbox)
    watch = Watch(inbox, SourceOptions())
    watches.append(watch)
    wait_until(lambda: len(watch.frames) == 2)
    assert watch.names == [good[0].name, good[1].name]
    shutil.copy(good[2], inbox)
    wait_until(lambda: len(watch.frames) == 3)
    moved_in = shutil.copy(good[3], inbox.parent / "half.png")
    Path(moved_in).rename(inbox / "moved.png")
    wait_until(lambda: watch.names[-1] == "moved.png")
    time.sleep(0.3)
    assert len(watch.frames) == 4


def test_a_file_is_taken_once_it_is_whole(
    inbox: Path, good: list[Path], watches: list[Watch]
) -> None:
    watch = Watch(inbox, SourceOptions())
    watches.append(watch)
    content = good[0].read_bytes()
    with (inbox / "slow.png").open("wb") as file:
        for start in range(0, len(content), len(content) // 5):
            file.write(content[start : start + len(content) // 5])
            file.flush()
            time.sleep(0.2)
            assert watch.frames == []
    wait_until(lambda: watch.names == ["slow.png"])
    # Closed while half of it is there, and then gone on with.
    (inbox / "twice.png").write_bytes(content[: len(content) // 2])
    time.sleep(0.3)
    assert watch.names == ["slow.png"]
    with (inbox / "twice.png").open("ab") as file:
        file.write(content[len(content) // 2 :])
    wait_until(lambda: watch.names == ["slow.png", "twice.png"])
    # What stays damaged is handed on, to become a verdict.
    (inbox / "broken.png").write_bytes(content[:50])
    wait_until(lambda: watch.names[-1] == "broken.png")


def test_scored_files_move_and_keep_their_names_apart(
    inbox: Path, tmp_path: Path, good: list[Path], watches: list[Watch]
) -> None:
    done = tmp_path / "done"
    watch = Watch(inbox, SourceOptions(move_to=done))
    watches.append(watch)
    for source in good[:2]:
        shutil.copy(source, inbox / "part.png")
        wait_until(lambda: not list(inbox.iterdir()))
    wait_until(lambda: len(watch.frames) == 2)
    assert watch.kept == [str(done / "part.png"), str(done / "part-2.png")]
    assert (done / "part.png").read_bytes() == good[0].read_bytes()
    assert (done / "part-2.png").read_bytes() == good[1].read_bytes()


def recorder(*images: Path) -> Callable[[Mapping[str, float]], set[str]]:
    return lambda came: {str(path) for path in images} & came.keys()


def test_what_was_recorded_is_left_out(
    inbox: Path, tmp_path: Path, good: list[Path], watches: list[Watch]
) -> None:
    for source in good[:2]:
        shutil.copy(source, inbox)
    watch = Watch(inbox, SourceOptions(recorded=recorder(inbox / good[0].name)))
    watches.append(watch)
    wait_until(lambda: watch.names == [good[1].name])
    # Recorded, and killed before it was moved: it is moved now, and not scored again.
    done = tmp_path / "done"
    done.mkdir()
    other = Watch(inbox, SourceOptions(move_to=done, recorded=recorder(done / good[0].name)))
    watches.append(other)
    wait_until(lambda: other.names == [good[1].name])
    assert sorted(path.name for path in done.iterdir()) == [good[0].name, good[1].name]


def test_a_name_that_is_used_again_is_another_image(
    inbox: Path, good: list[Path], watches: list[Watch]
) -> None:
    watch = Watch(inbox, SourceOptions())
    watches.append(watch)
    for number in (1, 2):  # the same file, as a camera whose clock stands still writes it
        shutil.copy2(good[0], inbox / "part.png")
        wait_until(lambda number=number: len(watch.frames) == number)
        (inbox / "part.png").unlink()
        time.sleep(0.2)


def test_what_is_no_image_is_said(
    inbox: Path, good: list[Path], watches: list[Watch], capsys: pytest.CaptureFixture[str]
) -> None:
    (inbox / "notes.txt").write_text("no image")
    watch = Watch(inbox, SourceOptions())
    watches.append(watch)
    shutil.copy(good[0], inbox)
    wait_until(lambda: watch.names == [good[0].name])
    assert "notes.txt: left out, its name is not that of an image" in capsys.readouterr().err
