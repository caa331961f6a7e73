"""The pictures of accuracy results, small enough to stand in a page."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

PER_CATEGORY = 16
SIZES = ((1000, 72), (800, 68), (640, 62), (480, 55), (360, 45))
"""Widths in pixels and WebP qualities, the first that fits is taken."""


@dataclass(frozen=True)
class Picture:
    """A picture of the gallery: a data URI, its size in pixels, and what it shows."""

    uri: str
    width: int
    height: int
    name: str
    caption: str


@dataclass(frozen=True)
class Gallery:
    """A category's pictures, and how many of those wanted could not be read."""

    category: str
    pictures: tuple[Picture, ...]
    missing: int


@dataclass(frozen=True)
class Pictures:
    """What a result file says about the pictures of a category, the doubtful first.

    Attributes:
        category: its name.
        folder: of the result file; paths are taken from the working directory, then from here.
        entries: as `stpm.benchmarks.accuracy.save_gallery` returns them.
    """

    category: str
    folder: Path
    entries: Sequence[Mapping[str, Any]]


def galleries(wanted: Sequence[Pictures], budget_bytes: int) -> list[Gallery]:
    """Read the first pictures of each category, as large and as many as fit.

    Args:
        wanted: the categories.
        budget_bytes: for the data URIs of all.
    """
    opened = [
        [(e, _read(Path(e["picture"]), group.folder)) for e in group.entries[:PER_CATEGORY]]
        for group in wanted
    ]
    pairs = [[(e, image) for e, image in group if image is not None] for group in opened]
    missing = [len(group) - len(found) for group, found in zip(opened, pairs, strict=True)]
    most = max(map(len, pairs), default=0)
    for count in (most, most // 2, most // 4, 1):
        for width, quality in SIZES if count == most else SIZES[-1:]:
            drawn = [
                tuple(_picture(e, image, width, quality) for e, image in found[:count])
                for found in pairs
            ]
            if sum(len(picture.uri) for group in drawn for picture in group) <= budget_bytes:
                groups = zip(wanted, drawn, missing, strict=True)
                return [Gallery(group.category, shown, absent) for group, shown, absent in groups]
    return []


def _read(path: Path, folder: Path) -> Image.Image | None:
    """Return a picture in RGB; None where it is missing or is none."""
    for candidate in (path, folder / path):
        try:
            with Image.open(candidate) as image:
                return image.convert("RGB")
        except (OSError, ValueError, Image.DecompressionBombError):
            continue
    return None


def _picture(entry: Mapping[str, Any], image: Image.Image, width: int, quality: int) -> Picture:
    if image.width > width:
        size = (width, max(1, round(image.height * width / image.width)))
        image = image.resize(size, Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    image.save(stream, "WEBP", quality=quality, method=6)
    uri = f"data:image/webp;base64,{base64.b64encode(stream.getvalue()).decode()}"
    kind, called = entry["kind"], "anomalous" if entry["is_anomalous"] else "good"
    part = "good part" if kind == "good" else f"defective part ({kind})"
    caption = f"{part}, called {called}, score {entry['score']:.4g}"
    return Picture(uri, image.width, image.height, f"{kind}/{Path(entry['picture']).stem}", caption)
