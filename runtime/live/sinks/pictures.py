"""Pictures of rejected parts and of every Nth good one, within a limit of disk space."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from PIL import Image

from stpm.runtime.errors import DataError
from stpm.runtime.images.preprocess import RGB, with_channels
from stpm.runtime.live.verdict import Event
from stpm.runtime.output.overlay import overlay
from stpm.runtime.partial import partial_path

MAX_MB = 1000
"""By default."""
BYTES_PER_MB = 10**6


class PicturesSink:
    """Keeps the image and an overlay of it; the oldest go when there is no more room."""

    wants_images = True

    def __init__(self, folder: Path, every: int, max_mb: float) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._every = every
        self._limit = int(max_mb * BYTES_PER_MB)
        self._good = 0

    def send(self, event: Event) -> None:
        """Keep the pictures of an event, if it is one to keep."""
        if event.image is None or event.result is None or not self._is_kept(event):
            return
        entry = event.entry
        time = re.sub(r"[^0-9TZ]", "", entry["time"].replace("+00:00", "Z"))
        stem = f"{time}-{entry['camera']}-{entry['verdict']}"
        image = with_channels(event.image, RGB)
        for name, pixels in (("", image), ("-overlay", overlay(image, event.result))):
            path = self._folder / f"{stem}{name}.png"
            partial = partial_path(path)
            Image.fromarray(pixels).save(partial, format="PNG", compress_level=1)
            partial.replace(path)
        self._make_room()

    def close(self) -> None:
        """Do nothing."""

    def _is_kept(self, event: Event) -> bool:
        if event.entry["verdict"] != "ok":
            return True
        self._good += 1
        return self._every > 0 and self._good % self._every == 0

    def _make_room(self) -> None:
        # By name, which begins with the time.
        files = [(path, path.stat().st_size) for path in sorted(self._folder.glob("*.png"))]
        surplus = sum(size for _, size in files) - self._limit
        for path, size in files:
            if surplus <= 0:
                return
            path.unlink()
            surplus -= size


def open_sink(address: str) -> PicturesSink:
    """Open "pictures:FOLDER[?every=N&max-mb=N]".

    Raises:
        DataError: an option is unknown, or no number.
    """
    parts = urlsplit(address)
    options = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    try:
        every, max_mb = int(options.pop("every", "0")), float(options.pop("max-mb", MAX_MB))
    except ValueError as error:
        raise DataError(f"{address}: {error}; expected whole numbers.") from None
    if options or every < 0 or max_mb <= 0:
        raise DataError(
            f"got the sink {address!r}, expected pictures:FOLDER?every=N&max-mb=N; correct it."
        )
    return PicturesSink(Path(parts.path), every, max_mb)
