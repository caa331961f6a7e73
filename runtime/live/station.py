"""The loop: each camera has a thread that takes frames and one that scores them."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from stpm.runtime.detector import Detector
from stpm.runtime.errors import DataError, StpmError, about
from stpm.runtime.images.preprocess import load_image
from stpm.runtime.live.delivery import Delivery
from stpm.runtime.live.drift import Drift
from stpm.runtime.live.latency import Latencies
from stpm.runtime.live.line import WhenBehind
from stpm.runtime.live.record import Record
from stpm.runtime.live.sources import Source
from stpm.runtime.live.verdict import Entry, Event, Frame, pixels_hash, utc
from stpm.runtime.output.console import note
from stpm.runtime.output.result import Verdict

if TYPE_CHECKING:
    from stpm.runtime.live.keep import KeptFrames  # needs OpenCV

LAST_DELIVERY = 10.0
"""Seconds that the sinks have at the end."""


@dataclass
class Camera:
    """A camera, what scores its frames, and how it stands.

    Attributes:
        name: in the record.
        source: of the frames.
        detector: that decides.
        shadow: that is asked as well, and decides nothing.
        drift: of the scores and the light; see `stpm.runtime.live.drift`.
        counts: verdicts so far.
        shadow_differs: frames that the shadow would have decided otherwise.
        latencies: of the stages from the frame to its verdict on the disk.
    """

    name: str
    source: Source
    detector: Detector
    shadow: Detector | None = None
    drift: Drift | None = None
    counts: Counter[str] = field(default_factory=Counter)
    shadow_differs: int = 0
    latencies: Latencies = field(default_factory=Latencies)


class Station:
    """Runs cameras until they end or are told to."""

    def __init__(
        self,
        cameras: Sequence[Camera],
        record: Record | None,
        deliveries: Sequence[Delivery],
        listeners: Sequence[Callable[[Event], None]] = (),
        *,
        when_behind: WhenBehind = WhenBehind.BLOCK,
        queue: int = 8,
        cycle_time: float | None = None,
        keep: KeptFrames | None = None,
    ) -> None:
        """Put a station together.

        Args:
            cameras: with names that differ.
            record: that every verdict is written to before anyone is told; None keeps none.
            deliveries: to the sinks.
            listeners: called with each event, in the camera's thread.
            when_behind: what becomes of frames that are too many.
            queue: frames that may wait for each camera's scorer.
            cycle_time: seconds that a verdict may take; later ones are counted.
            keep: brings scored frames that are no files to the disk before their verdicts.
        """
        self.cameras = cameras
        self.deliveries = list(deliveries)
        self.cycle_time = cycle_time
        self.late = 0
        self.keep = keep
        self._record = record
        self._listeners = listeners
        self.policy = when_behind
        self.capacity = queue
        self.stopping = threading.Event()
        self._recording = threading.Lock()
        self._failure: BaseException | None = None

    def add_delivery(self, delivery: Delivery) -> None:
        """Tell one more, before `run`."""
        self.deliveries.append(delivery)

    def stop(self) -> None:
        """Take no more frames; what was taken is scored and told."""
        self.stopping.set()

    def run(self) -> None:
        """Run until all sources end, or `stop`.

        Raises:
            StpmError, OSError: the record cannot be written any more, or an engine fails; nothing
                is scored then.
        """
        lines = [_Line(self, camera) for camera in self.cameras]
        threads = [thread for line in lines for thread in line.threads]
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive():
                thread.join(0.2)  # so that a signal's handler runs
        for delivery in self.deliveries:
            delivery.close(LAST_DELIVERY)
        if self._record is not None:
            self._record.close()
        if self._failure is not None:
            raise self._failure

    def tell(self, camera: Camera, frame: Frame, event: Event) -> None:
        """Write an event's entry to the record, and then tell everybody."""
        with self._recording:
            entry = self._record.append(event.entry) if self._record is not None else event.entry
            camera.counts[entry["verdict"]] += 1
            if entry["latency_ms"]:
                total = (time.time_ns() - frame.taken_ns) / 1e6
                camera.latencies.add(entry["latency_ms"] | {"total": total})
                self.late += self.cycle_time is not None and total > 1e3 * self.cycle_time
            bound = Event(entry, event.image, event.result)
            for delivery in self.deliveries:
                delivery.put(bound)
            for listener in self._listeners:
                listener(bound)
        camera.source.done(frame)

    def fail(self, error: BaseException) -> None:
        """End everything, for what cannot be gone on with."""
        self._failure = self._failure or error
        self.stopping.set()


class _Line:
    """One camera's two threads, and the queue between them."""

    def __init__(self, station: Station, camera: Camera) -> None:
        self._station = station
        self._camera = camera
        self._waiting: deque[Frame] = deque()
        self._changed = threading.Condition()
        self._has_ended = False
        self.threads = [
            threading.Thread(target=self._guarded, args=(work,), name=f"{camera.name} {label}")
            for label, work in (("takes", self._take), ("scores", self._score))
        ]

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            self._station.fail(error)
        finally:
            with self._changed:
                self._has_ended = self._has_ended or work == self._take
                self._changed.notify_all()

    def _take(self) -> None:
        for frame in self._camera.source.frames(self._station.stopping):
            dropped = self._put(frame)
            if dropped is not None:
                entry = self._entry(dropped, {"verdict": "dropped", "latency_ms": {}})
                self._station.tell(self._camera, dropped, Event(entry))

    def _put(self, frame: Frame) -> Frame | None:
        """Queue a frame; returns the one that has to go for it."""
        station = self._station
        with self._changed:
            if station.policy is WhenBehind.BLOCK:
                self._changed.wait_for(
                    lambda: len(self._waiting) < station.capacity or station.stopping.is_set()
                )
            dropped = None
            if len(self._waiting) >= station.capacity and station.policy is not WhenBehind.BLOCK:
                if station.policy is WhenBehind.DROP_NEWEST:
                    return frame
                dropped = self._waiting.popleft()
            self._waiting.append(frame)
            self._changed.notify_all()
            return dropped

    def _score(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._has_ended)
                if not self._waiting:
                    return
                frame = self._waiting.popleft()
                self._changed.notify_all()
            self._station.tell(self._camera, frame, self._inspect(frame))

    def _inspect(self, frame: Frame) -> Event:
        camera = self._camera
        contract = camera.detector.bundle.manifest.input
        marks = [frame.taken_ns, time.time_ns()]
        try:
            if isinstance(frame.image, DataError):
                raise frame.image
            image = load_image(frame.image, contract.bit_depth, contract.channels)
            marks.append(time.time_ns())
            with about(frame.name):
                result = camera.detector(image)
        except StpmError as error:
            note(f"error: {error}")
            found: Entry = {"verdict": "error", "error": str(error), "latency_ms": {}}
            return Event(self._entry(frame, found))
        marks.append(time.time_ns())
        stages = ("wait", "decode", "score")
        latency = {s: (b - a) / 1e6 for s, a, b in zip(stages, marks, marks[1:], strict=False)}
        found = {
            "verdict": result.verdict,
            "threshold": float(result.threshold),
            "sha256": pixels_hash(image),
            "regions": len(result.regions),
            "latency_ms": {stage: round(ms, 3) for stage, ms in latency.items()},
        }
        self._keep(frame, found)
        is_scored = result.verdict != "unaligned"
        if is_scored:
            found["score"] = float(result.score)
        if result.rois:
            found["rois"] = {roi.name: roi.verdict for roi in result.rois}
        if camera.shadow is not None:
            found["shadow"] = self._ask_shadow(camera.shadow, image, result.verdict)
        if camera.drift is not None and is_scored:
            found["drift"] = camera.drift.update(result.score, image)
        return Event(self._entry(frame, found), image, result)

    def _keep(self, frame: Frame, found: Entry) -> None:
        """Keep a frame, and enter where, and the time that it took."""
        if self._station.keep is None:
            return
        started = time.perf_counter()
        kept = self._station.keep.put(self._camera.name, frame)
        if kept:
            found["kept"] = kept
            found["latency_ms"]["keep"] = round(1e3 * (time.perf_counter() - started), 3)

    def _ask_shadow(self, shadow: Detector, image: NDArray[np.uint8], verdict: Verdict) -> Entry:
        """Ask the second bundle, which decides nothing: it may fail."""
        try:
            other = shadow(image)
        except StpmError as error:
            return {"verdict": "error", "error": str(error)}
        self._camera.shadow_differs += other.verdict != verdict
        if other.verdict == "unaligned":
            return {"verdict": other.verdict}
        return {"score": float(other.score), "verdict": other.verdict}

    def _entry(self, frame: Frame, found: Entry) -> Entry:
        camera = self._camera
        return {
            "time": utc(frame.taken_ns),
            "camera": camera.name,
            "image": camera.source.name_in_record(frame),
            "bundle": camera.detector.bundle.manifest_sha256,
            "engine": camera.detector.engine_name,
        } | found
