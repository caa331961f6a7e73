"""A station as it would run, tried for some frames: at full speed, or at a cycle time."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event as Signal

from stpm.benchmarks.measure.latency import Image8
from stpm.runtime.detector import Detector
from stpm.runtime.errors import DataError
from stpm.runtime.live.drift import Drift
from stpm.runtime.live.record import Record
from stpm.runtime.live.station import Camera, Station
from stpm.runtime.live.verdict import Entry, Event, Frame

LEAD_NS = 100_000_000
"""From the start of the threads to the first frame."""


class PacedSource:
    """A camera whose frames are due at fixed times, whether or not they can be taken then.

    Attributes:
        state: see `stpm.runtime.live.sources.Source`.
        latencies_ms: from when a frame was due to its verdict on the disk.
        last_ns: when the last verdict was.
    """

    def __init__(self, images: Sequence[Image8], count: int, period_ns: int, start_ns: int) -> None:
        """Prepare it.

        Args:
            images: to show in turn.
            count: of frames.
            period_ns: between two; 0 gives each as soon as it is taken.
            start_ns: of the first one, in nanoseconds since 1970.
        """
        self.state = ""
        self.latencies_ms: list[float] = []
        self.last_ns = start_ns
        self._images = images
        self._count = count
        self._period_ns = period_ns
        self._start_ns = start_ns

    def frames(self, stop: Signal) -> Iterator[Frame]:
        """Yield the frames."""
        for number in range(self._count):
            due = self._start_ns + number * self._period_ns
            if stop.wait(max(0, due - time.time_ns()) / 1e9):
                return
            taken = due if self._period_ns else time.time_ns()
            yield Frame(self._images[number % len(self._images)], f"#{number}", taken)

    def name_in_record(self, frame: Frame) -> str:
        """Return its name."""
        return frame.name

    def done(self, frame: Frame) -> None:
        """Note how long it took."""
        self.last_ns = time.time_ns()
        self.latencies_ms.append((self.last_ns - frame.taken_ns) / 1e6)


@dataclass(frozen=True)
class Trial:
    """What a station did.

    Attributes:
        latencies_ms: of all cameras.
        entries: of the record.
        seconds: from the first frame to the last verdict.
        processor_s: of this process.
    """

    latencies_ms: list[float]
    entries: list[Entry]
    seconds: float
    processor_s: float


def try_station(
    detector: Detector, images: Sequence[Image8], cameras: int, count: int, period_ns: int
) -> Trial:
    """Run a station with its record and its test for drift, without sinks and without a page.

    Args:
        detector: that scores for all cameras.
        images: uint8 (H,W,3), in turn.
        cameras: that take their frames at the same time.
        count: frames of each.
        period_ns: between two frames of a camera; 0 for full speed.

    Raises:
        DataError: the images do not fit the bundle.
    """
    start_ns = time.time_ns() + LEAD_NS
    sources = [PacedSource(images, count, period_ns, start_ns) for _ in range(cameras)]
    calibration = detector.calibration
    entries: list[Entry] = []

    def listen(event: Event) -> None:
        entries.append(event.entry)

    with tempfile.TemporaryDirectory(prefix="stpm-plan-") as folder:
        station = Station(
            [
                Camera(
                    f"camera{number}",
                    source,
                    detector,
                    drift=Drift(calibration.scores, calibration.image_statistics),
                )
                for number, source in enumerate(sources, 1)
            ],
            Record(Path(folder)),
            [],
            [listen],
        )
        began = time.process_time()
        station.run()
        processor_s = time.process_time() - began
    for entry in entries:
        if entry["verdict"] == "error":
            raise DataError(entry["error"])
    seconds = (max(source.last_ns for source in sources) - start_ns) / 1e9
    latencies = [ms for source in sources for ms in source.latencies_ms]
    return Trial(latencies, entries, seconds, processor_s)
