"""Frames of cameras and videos as files, so that a record of them can be replayed."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np

from stpm.runtime.live.room import Room, time_stem
from stpm.runtime.live.verdict import Frame, utc
from stpm.runtime.output.console import note
from stpm.runtime.partial import partial_path


class KeptFrames:
    """Keeps each frame as PNG of its own depth; the oldest go when there is no more room.

    Attributes:
        failed: frames that the disk refused.
    """

    def __init__(self, folder: Path, max_mb: float, record: Path) -> None:
        """Begin to keep frames.

        Args:
            folder: made if it is missing.
            max_mb: of all of them, in megabytes of 10^6 bytes.
            record: folder of the record that names them.
        """
        self.failed = 0
        self._folder = folder.absolute()
        self._record = record.absolute()
        self._room = Room(self._folder, max_mb)
        self._partials: dict[str, Path] = {}

    def put(self, camera: str, frame: Frame) -> str:
        """Bring a frame to the disk.

        Args:
            camera: its name; frames of one camera come one after the other.
            frame: of pixels; one that came as a file is left where it is.

        Returns:
            The file, relative to the record's folder, so that both can be copied elsewhere
            together; "" where there is none.
        """
        if not isinstance(frame.image, np.ndarray):
            return ""
        path = self._folder / f"{time_stem(utc(frame.taken_ns), camera)}.png"
        # OpenCV's order of colours; its own settings are its fastest.
        bgr = frame.image if frame.image.ndim == 2 else frame.image[..., 2::-1]
        try:
            content = cv2.imencode(".png", bgr)[1]
            self._room.take(path.name, content.size)
            partial = self._partial(camera)
            with partial.open("wb") as file:
                file.write(content.data)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        except OSError as error:
            self.failed += 1
            if self.failed == 1:
                note(f"{path}: frames cannot be kept ({error.strerror}); their verdicts are")
            return ""
        return _relative(path, self._record)

    def _partial(self, camera: str) -> Path:
        if camera not in self._partials:
            self._partials[camera] = partial_path(self._folder / camera)
        return self._partials[camera]


def _relative(path: Path, folder: Path) -> str:
    try:
        return Path(os.path.relpath(path, folder)).as_posix()
    except ValueError:  # on Windows, from one drive to another
        return str(path)
