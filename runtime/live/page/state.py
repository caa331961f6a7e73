"""What the live page shows: the last verdicts with small pictures, and how all stands."""

from __future__ import annotations

import io
import itertools
import math
import threading
from collections import deque
from dataclasses import replace
from pathlib import PurePath
from typing import Any

from PIL import Image

from stpm.runtime.images.preprocess import load_image, picture_of
from stpm.runtime.live.station import Station
from stpm.runtime.live.verdict import Entry, Event
from stpm.runtime.output.overlay import overlay
from stpm.runtime.output.result import Result
from stpm.runtime.store import shown

LAST = 12
"""Verdicts with pictures, of each camera."""
SCORES = 400
"""Scores over time, of each camera."""
SIDE = 480
"""Pixels of a picture's longer side."""
_SHOWN = ("time", "image", "verdict", "score", "error")


class PageState:
    """Takes events as a sink, and tells the page."""

    wants_images = True

    def __init__(self, station: Station) -> None:
        self._station = station
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._last: dict[str, deque[tuple[int, Entry, bytes | None]]] = {}
        self._scores: dict[str, deque[tuple[float, str]]] = {}
        self.version = 0
        """Grows with each event."""

    def send(self, event: Event) -> None:
        """Take an event."""
        picture = _picture(event)
        entry, number = event.entry, next(self._numbers)
        camera = entry["camera"]
        with self._lock:
            self._last.setdefault(camera, deque(maxlen=LAST)).append((number, entry, picture))
            if "score" in entry:
                scores = self._scores.setdefault(camera, deque(maxlen=SCORES))
                scores.append((entry["score"], entry["verdict"]))
            self.version += 1

    def close(self) -> None:
        """Do nothing."""

    def picture(self, number: int) -> bytes | None:
        """Return a verdict's picture as JPEG, if it is still there."""
        with self._lock:
            rows = [row for last in self._last.values() for row in last]
        return next((picture for one, _, picture in rows if one == number), None)

    def to_dict(self) -> dict[str, Any]:
        """Return all that the page shows, as plain values for JSON."""
        with self._lock:
            last = {camera: list(rows) for camera, rows in self._last.items()}
            scores = {camera: list(rows) for camera, rows in self._scores.items()}
        station = self._station
        cameras = [
            {
                "name": camera.name,
                "bundle": PurePath(shown(camera.detector.bundle.path)).name,
                "engine": camera.detector.engine_name,
                "state": camera.source.state,
                "counts": dict(camera.counts),
                "threshold": camera.detector.calibration.image_threshold,
                "warn_threshold": camera.detector.calibration.warn_threshold,
                "latency_ms": {
                    stage: [round(value, 2) for value in values]
                    for stage, values in camera.latencies.quantiles().items()
                },
                "drift": {
                    name: {"log10_evidence": round(state.log10_evidence, 2), "alarm": state.alarm}
                    for name, state in (camera.drift.states if camera.drift else {}).items()
                },
                "shadow_differs": camera.shadow_differs if camera.shadow else None,
                "scores": scores.get(camera.name, []),
                "last": [
                    {"number": number, "has_picture": picture is not None}
                    | {key: entry.get(key) for key in _SHOWN}
                    for number, entry, picture in reversed(last.get(camera.name, []))
                ],
            }
            for camera in station.cameras
        ]
        sinks = [
            {
                "address": delivery.address,
                "state": delivery.state,
                "sent": delivery.sent,
                "waiting": delivery.waiting,
                "lost": delivery.lost,
            }
            for delivery in station.deliveries
        ]
        return {
            "cameras": cameras,
            "sinks": sinks,
            "cycle_time": station.cycle_time,
            "late": station.late,
        }


def _picture(event: Event) -> bytes | None:
    if event.image is None:
        return None
    image = picture_of(event.image)
    image.thumbnail((SIDE, SIDE), Image.Resampling.BILINEAR, reducing_gap=1.0)
    if event.result is not None:
        # Painted small: at the camera's size it would take longer than the score.
        pixels = load_image(image)
        image = Image.fromarray(overlay(pixels, _small(event.result, image)))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return buffer.getvalue()


def _small(result: Result, image: Image.Image) -> Result:
    """Return a result as of a smaller image."""
    height, width = result.image_size
    area = result.min_area * image.width * image.height / (width * height)
    return replace(result, image_size=(image.height, image.width), min_area=math.ceil(area))
