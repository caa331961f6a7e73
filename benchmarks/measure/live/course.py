"""The course of a run: things fail around a station and are mended, and it is looked at."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from stpm.benchmarks.measure.live.process import StationProcess
from stpm.benchmarks.measure.live.surroundings import Broker, Camera, SmallDisk
from stpm.benchmarks.records.live import Failure, Sample
from stpm.runtime.output.console import note

BROKER_AT, CAMERA_AT, DISK_AT = 0.35, 0.5, 0.65
"""When something fails, as a share of the run."""
FAILURE, LONGEST_FAILURE = 0.08, 30.0
"""How long it lasts, as a share of the run, and at most in seconds."""
SAMPLE = 2.0
"""Seconds between two looks at the station's memory."""


@dataclass
class Course:
    """A run as it goes: what is there, what failed, what was measured.

    Attributes:
        cameras, broker, disk, station: what is there.
        began: monotonic time of the start.
        failures: so far.
        samples: of the station's process.
        unplugged_ns: when the first camera went.
        stopped_ns: when the broker went, and came back.
    """

    cameras: Sequence[Camera]
    broker: Broker
    disk: SmallDisk
    station: StationProcess
    began: float = field(default_factory=time.monotonic)
    failures: list[Failure] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    unplugged_ns: int | None = None
    stopped_ns: tuple[int, int] | None = None

    def stop_broker(self) -> None:
        """Stop the broker."""
        self.broker.stop()
        self.stopped_ns = time.time_ns(), time.time_ns()
        self._failed("broker stopped")

    def start_broker(self) -> None:
        """Start it again."""
        self.broker.start()
        assert self.stopped_ns is not None
        self.stopped_ns = self.stopped_ns[0], time.time_ns()
        self._mended("broker stopped")

    def unplug_camera(self) -> None:
        """Kill the first camera."""
        self.cameras[0].unplug()
        self.unplugged_ns = time.time_ns()
        self._failed("camera unplugged")

    def plug_camera(self) -> None:
        """Switch it on again."""
        self.cameras[0].start()
        self._mended("camera unplugged")

    def fill_disk(self) -> None:
        """Fill the pictures' disk."""
        self.disk.fill()
        self._failed("disk filled")

    def clear_disk(self) -> None:
        """Make room on it again."""
        self.disk.clear()
        self._mended("disk filled")

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.began

    def _failed(self, what: Any) -> None:
        note(f"{self.elapsed:.0f} s: {what}")
        self.failures.append({"what": what, "at_s": round(self.elapsed, 2), "lasted_s": 0.0})

    def _mended(self, what: str) -> None:
        (failure,) = (one for one in self.failures if one["what"] == what)
        failure["lasted_s"] = round(self.elapsed - failure["at_s"], 2)
        note(f"{self.elapsed:.0f} s: {what} no more")

    def plan(self, seconds: float) -> list[tuple[float, Callable[[], None]]]:
        """Return what happens when, in seconds from the start."""
        lasts = min(FAILURE * seconds, LONGEST_FAILURE)
        pairs = [
            (BROKER_AT, self.stop_broker, self.start_broker),
            (CAMERA_AT, self.unplug_camera, self.plug_camera),
        ]
        if self.disk.is_mounted:
            pairs.append((DISK_AT, self.fill_disk, self.clear_disk))
        else:
            note("only root can mount a small disk: none is filled")
        begins = [(share * seconds, begin) for share, begin, _ in pairs]
        return sorted(
            begins + [(share * seconds + lasts, end) for share, _, end in pairs],
            key=lambda pair: pair[0],
        )

    def follow(self, seconds: float) -> None:
        """Let it run, let things fail, and look at the station meanwhile."""
        coming = self.plan(seconds)
        sample_at = 0.0
        while self.elapsed < seconds:
            if coming and self.elapsed >= coming[0][0]:
                coming.pop(0)[1]()
            if self.elapsed >= sample_at:
                self.station.check()
                self.samples.append(self.station.sample())
                sample_at += SAMPLE
            time.sleep(0.05)
