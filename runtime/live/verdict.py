"""What goes through a station: a frame of a camera, and what was said of it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stpm.runtime.errors import DataError
from stpm.runtime.images.preprocess import RGB, ImageSource, with_channels
from stpm.runtime.output.result import Result

Entry = dict[str, Any]
"""A verdict as JSON: see docs/live.md."""


@dataclass(frozen=True)
class Frame:
    """An image that a camera took.

    Attributes:
        image: its path, or its pixels, see `stpm.runtime.images.preprocess.ImageSource`; or why it
            did not arrive.
        name: of the image: the file's path, or the camera's count.
        taken_ns: when, in nanoseconds since 1970.
    """

    image: ImageSource | DataError
    name: str
    taken_ns: int

    @property
    def path(self) -> Path | None:
        """The file, where it came as one."""
        return self.image if isinstance(self.image, Path) else None


@dataclass(frozen=True)
class Event:
    """A recorded verdict, with what pictures are made of.

    Attributes:
        entry: as it stands in the record.
        image: uint8 (H,W,C) as it was scored, where there is one.
        result: where it was scored.
    """

    entry: Entry
    image: NDArray[np.uint8] | None = None
    result: Result | None = None


def pixels_hash(image: NDArray[np.uint8]) -> str:
    """Return the SHA-256 of the size and the pixels in RGB of an image uint8 (H,W,1) or (H,W,3)."""
    height, width = image.shape[:2]
    digest = hashlib.sha256(f"{height}x{width}:".encode())
    digest.update(with_channels(image, RGB).data)
    return digest.hexdigest()


def utc(nanoseconds: int) -> str:
    """Return a time as ISO 8601 in UTC, to the microsecond."""
    return datetime.fromtimestamp(nanoseconds / 1e9, UTC).isoformat(timespec="microseconds")
