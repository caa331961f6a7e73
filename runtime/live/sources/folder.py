"""A folder that fills: files are taken once they are whole, by the operating system's events."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Event

from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer

from stpm.runtime.errors import DataError
from stpm.runtime.images.preprocess import IMAGE_SUFFIXES, read_pixels
from stpm.runtime.live.sources import SourceOptions
from stpm.runtime.live.verdict import Frame
from stpm.runtime.output.console import note

SETTLED = 1.0
"""Seconds without a change after which a file that nobody closed counts as whole."""
_TICK = 0.05


class FolderSource:
    """Watches a folder, not those in it. Files that are there already come first, by name."""

    def __init__(self, folder: Path, options: SourceOptions) -> None:
        self.state = ""
        self._folder = folder.absolute()
        self._move_to = options.move_to.absolute() if options.move_to is not None else None
        self._known = options.recorded(self._came())
        self._changed: SimpleQueue[tuple[Path, bool]] = SimpleQueue()
        self._taken: dict[Path, tuple[int, int]] = {}
        self._foreign: set[Path] = set()
        self._reserved: dict[Path, Path] = {}

    def frames(self, stop: Event) -> Iterator[Frame]:
        """Yield the files as they become whole, until `stop` is set."""
        observer = Observer()
        observer.schedule(_Listener(self._changed), str(self._folder))
        observer.start()
        try:
            waiting = dict.fromkeys(sorted(self._folder.iterdir()), 0.0)
            while not stop.is_set():
                yield from self._whole(waiting)
                self._collect(waiting)
        finally:
            observer.stop()
            observer.join()

    def name_in_record(self, frame: Frame) -> str:
        """Return where the file is once it is done with; that name is kept for it."""
        assert frame.path is not None
        if self._move_to is None:
            return frame.name
        destination = self._free_name(self._move_to, frame.path)
        self._reserved[frame.path] = destination
        return str(destination)

    def done(self, frame: Frame) -> None:
        """Move the file, if that was asked for."""
        assert frame.path is not None
        destination = self._reserved.pop(frame.path, None)
        if destination is not None:
            destination.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(frame.path, destination)

    def _came(self) -> dict[str, float]:
        """Return when the files that are there came, by what the record would call them."""
        folder = self._move_to or self._folder
        with os.scandir(self._folder) as files:
            return {str(folder / file.name): file.stat().st_ctime for file in files}

    def _free_name(self, folder: Path, path: Path) -> Path:
        """Name a place for a file: cameras begin to count again."""
        candidate = folder / path.name
        number = 1
        while candidate.exists() or candidate in self._reserved.values():
            number += 1
            candidate = folder / f"{path.stem}-{number}{path.suffix}"
        return candidate

    def _collect(self, waiting: dict[Path, float]) -> None:
        """Wait a moment for changes; a file that was closed is looked at at once."""
        try:
            path, is_closed = self._changed.get(timeout=_TICK)
        except Empty:
            return
        waiting[path] = 0.0 if is_closed else time.monotonic() + SETTLED

    def _whole(self, waiting: dict[Path, float]) -> Iterator[Frame]:
        now = time.monotonic()
        for path, due in list(waiting.items()):
            if due > now:
                continue
            del waiting[path]
            if not self._is_new(path):
                continue
            if due == 0 and not _is_readable(path):
                # Its writer may close and open it again; what stays unreadable is a verdict.
                waiting[path] = now + SETTLED
                self._taken.pop(path, None)
                continue
            yield Frame(path, str(path), time.time_ns())

    def _is_new(self, path: Path) -> bool:
        """Whether a file is an image that was not taken as it stands."""
        try:
            status = path.stat()
        except FileNotFoundError:
            self._taken.pop(path, None)
            self._foreign.discard(path)
            return False
        if not path.is_file():
            return False
        if path.suffix.lower() not in IMAGE_SUFFIXES:
            if path not in self._foreign and not path.name.startswith("."):
                note(f"{path}: left out, its name is not that of an image")
            self._foreign.add(path)
            return False
        stamp = (status.st_mtime_ns, status.st_size)
        if self._taken.get(path) == stamp:
            return False
        self._taken[path] = stamp
        return not self._has_verdict(path)

    def _has_verdict(self, path: Path) -> bool:
        """Whether a file was recorded before the station began; it is moved then, if it should."""
        recorded_as = (self._move_to or self._folder) / path.name
        if str(recorded_as) not in self._known:
            return False
        self._known.remove(str(recorded_as))
        if self._move_to is None:
            return True
        if recorded_as.exists():
            return False
        shutil.move(path, recorded_as)  # recorded, and then the station was killed
        return True


class _Listener(FileSystemEventHandler):
    """Puts paths into a queue, with whether their writer has closed them."""

    def __init__(self, changed: SimpleQueue[tuple[Path, bool]]) -> None:
        self._changed = changed

    def _put(self, path: str | bytes, *, is_closed: bool) -> None:
        text = path if isinstance(path, str) else path.decode()
        self._changed.put((Path(text).absolute(), is_closed))

    def on_created(self, event: FileSystemEvent) -> None:
        self._put(event.src_path, is_closed=False)

    def on_modified(self, event: FileSystemEvent) -> None:
        self._put(event.src_path, is_closed=False)

    def on_closed(self, event: FileSystemEvent) -> None:
        self._put(event.src_path, is_closed=True)

    def on_moved(self, event: FileSystemEvent) -> None:
        self._put(event.src_path, is_closed=True)
        self._put(event.dest_path, is_closed=True)

    def on_deleted(self, event: FileSystemEvent) -> None:
        self._put(event.src_path, is_closed=True)


def _is_readable(path: Path) -> bool:
    try:
        read_pixels(path)
    except DataError:
        return False
    return True
