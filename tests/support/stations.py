"""Stations for tests: a source that hands out what it is given, and stpm-live as a process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from threading import Event as Signal

from stpm.runtime.errors import DataError
from stpm.runtime.images.preprocess import ImageSource
from stpm.runtime.live.verdict import Entry, Frame


class ListSource:
    """Frames that are there from the start."""

    def __init__(self, images: Sequence[ImageSource | DataError]) -> None:
        self.state = ""
        self._images = images
        self.recorded: list[str] = []

    def frames(self, stop: Signal) -> Iterator[Frame]:
        for number, image in enumerate(self._images):
            if stop.is_set():
                return
            yield Frame(image, f"list#{number}", time.time_ns())

    def name_in_record(self, frame: Frame) -> str:
        return frame.name

    def done(self, frame: Frame) -> None:
        self.recorded.append(frame.name)


def wait_until(holds: Callable[[], bool], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not come about in time"
        time.sleep(0.02)


def entry(number: int = 0, verdict: str = "ok", camera: str = "top") -> Entry:
    """A verdict as a station records it."""
    return {
        "time": f"2026-05-04T06:30:{number % 60:02}.000000+00:00",
        "camera": camera,
        "image": f"part{number}.png",
        "verdict": verdict,
        "score": 0.25 + number,
        "threshold": 0.5,
        "sha256": f"{number:064x}",
        "latency_ms": {"score": 1.5},
    }


class Live:
    """`stpm-live` as a process of its own."""

    def __init__(self, folder: Path, *arguments: object) -> None:
        self.folder = folder
        with (folder / "out").open("a") as out, (folder / "err").open("a") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "stpm.runtime.live", *map(str, arguments)],
                cwd=folder,
                stdout=out,
                stderr=err,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
            )

    @property
    def lines(self) -> list[str]:
        return (self.folder / "out").read_text().splitlines()

    @property
    def log(self) -> str:
        return (self.folder / "err").read_text()

    def end(self) -> int:
        """Ask it to end, and return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(30)
