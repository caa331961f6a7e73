"""Video files, RTSP streams and USB cameras, by OpenCV."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Event

import cv2
import numpy as np
from numpy.typing import NDArray

from stpm.runtime.errors import DataError
from stpm.runtime.live.sources import SourceOptions
from stpm.runtime.live.verdict import Frame
from stpm.runtime.output.console import note

FIRST_WAIT, LONGEST_WAIT = 0.5, 10.0
"""Seconds until a lost camera is tried again; doubled each time."""
# OpenCV's own choice, and that what a lost camera sent of a frame is no frame.
os.environ.setdefault("OPENCV_FFMPEG_CAPTURE_OPTIONS", "rtsp_transport;tcp|fflags;discardcorrupt")


class VideoSource:
    """A file, which ends, or a camera, which is opened again when it is lost."""

    def __init__(self, address: str | int, options: SourceOptions) -> None:
        """Open it.

        Raises:
            DataError: it cannot be opened.
        """
        self.state = ""
        self._address = address
        self._is_file = isinstance(address, str) and Path(address).is_file()
        self._every = options.every
        self._capture = cv2.VideoCapture(address)
        if not self._capture.isOpened():
            raise DataError(f"{address}: cannot be opened as a video or camera; check the address.")

    def frames(self, stop: Event) -> Iterator[Frame]:
        """Yield frames in RGB, at least `every` seconds apart, in a file of its own time."""
        number, due = 0, 0.0
        try:
            while not stop.is_set():
                there, bgr = self._capture.read()
                if not there and self._is_file:
                    if number == 0:
                        raise DataError(
                            f"{self._address}: has no frame that can be read; check the file."
                        )
                    return
                if not there:
                    self._reconnect(stop)
                    continue
                number += 1
                at = (
                    self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1e3
                    if self._is_file
                    else time.monotonic()
                )
                if number > 1 and at < due:
                    continue
                due = at + self._every
                yield Frame(_rgb(bgr), f"{self._address}#{number}", time.time_ns())
        finally:
            self._capture.release()

    def name_in_record(self, frame: Frame) -> str:
        """Return its name; --keep stores its pixels under another."""
        return frame.name

    def done(self, frame: Frame) -> None:
        """Do nothing."""

    def _reconnect(self, stop: Event) -> None:
        self.state = "lost"
        note(f"{self._address}: the camera is lost; reconnecting")
        wait = FIRST_WAIT
        while not stop.wait(wait):
            self._capture.release()
            self._capture = cv2.VideoCapture(self._address)
            if self._capture.isOpened():
                self.state = ""
                note(f"{self._address}: the camera is back")
                return
            wait = min(2 * wait, LONGEST_WAIT)


def _rgb(bgr: cv2.typing.MatLike) -> NDArray[np.uint8]:
    rgb = bgr[..., ::-1] if bgr.ndim == 3 else bgr
    return np.ascontiguousarray(rgb, dtype=np.uint8)
