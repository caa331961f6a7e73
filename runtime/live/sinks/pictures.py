"""Pictures of rejected parts and of every Nth good one, within a limit of disk space."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from stpm.runtime.errors import DataError
from stpm.runtime.images.preprocess import RGB, with_channels
from stpm.runtime.live.room import Room, time_stem
from stpm.runtime.live.verdict import Entry, Event
from stpm.runtime.output.overlay import overlay
from stpm.runtime.partial import partial_path

MAX_MB = 1000
"""By default."""
OVERLAY = "-overlay"
"""Ends the name of the second picture of an image."""


class PicturesSink:
    """Keeps the image and an overlay of it; the oldest go when there is no more room."""

    wants_images = True

    def __init__(self, folder: Path, every: int, max_mb: float) -> None:
        self._folder = folder
        self._every = every
        self._room = Room(folder, max_mb)
        self._partial = partial_path(folder / "picture")
        self._good = 0

    def send(self, event: Event) -> None:
        """Keep the pictures of an event, if it is one to keep."""
        is_good = event.entry["verdict"] == "ok"
        if event.image is not None and event.result is not None and self._is_kept(is_good=is_good):
            image = with_channels(event.image, RGB)
            self._keep(event.entry, image, overlay(image, event.result))
        self._good += is_good  # not before: what the disk refuses is sent again

    def close(self) -> None:
        """Do nothing."""

    def _is_kept(self, *, is_good: bool) -> bool:
        return not is_good or (self._every > 0 and (self._good + 1) % self._every == 0)

    def _keep(self, entry: Entry, image: NDArray[np.uint8], painted: NDArray[np.uint8]) -> None:
        stem = f"{time_stem(entry['time'], entry['camera'])}-{entry['verdict']}"
        for name, pixels in (("", image), (OVERLAY, painted)):
            path = self._folder / f"{stem}{name}.png"
            Image.fromarray(pixels).save(self._partial, format="PNG", compress_level=1)
            self._room.take(path.name, self._partial.stat().st_size)
            self._partial.replace(path)


def open_sink(address: str) -> PicturesSink:
    """Open "pictures:FOLDER[?every=N&max-mb=N]".

    Raises:
        DataError: an option is unknown, or no number.
    """
    parts = urlsplit(address)
    options = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    try:
        every, max_mb = int(options.pop("every", "0")), float(options.pop("max-mb", MAX_MB))
    except ValueError:
        every, max_mb = -1, 0
    if options or every < 0 or max_mb <= 0:
        raise DataError(
            f"got the sink {address!r}, expected pictures:FOLDER?every=N&max-mb=N with whole "
            "numbers N; correct it."
        )
    return PicturesSink(Path(parts.path), every, max_mb)
