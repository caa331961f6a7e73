"""The pictures of accuracy results, small enough to stand in a page."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from stpm.benchmarks.records.accuracy import AccuracyRecord
from stpm.benchmarks.records.accuracy import Picture as PictureRecord

PER_CATEGORY = 16
SIZES = ((1000, 72), (800, 68), (640, 62), (480, 55), (320, 40))
"""Widths in pixels and WebP qualities; a picture takes the first with which it fits."""


@dataclass(frozen=True)
class Entry:
    """A picture that a result names: the file, what the image is called, what it shows."""

    path: Path
    name: str
    caption: str


@dataclass(frozen=True)
class Picture:
    """A picture in the page: its entry, a data URI, its size in pixels."""

    entry: Entry
    uri: str
    width: int
    height: int


@dataclass(frozen=True)
class Gallery:
    """A category's pictures, and how many of those wanted are not among them.

    Attributes:
        category: its name.
        pictures: the doubtful first.
        unread: files that are missing or no pictures.
        too_large: pictures that the page has no room for.
    """

    category: str
    pictures: tuple[Picture, ...]
    unread: int
    too_large: int


def entries_of(content: AccuracyRecord, folder: Path) -> dict[str, list[Entry]]:
    """Return the first pictures that a result of kind "accuracy" names, by category.

    Args:
        content: of the result file.
        folder: of the result file; a path that is not found from the working directory is taken
            from here.
    """
    found = {}
    for category, pictures in content["gallery"].items():
        found[category] = [_entry(picture, folder) for picture in pictures[:PER_CATEGORY]]
    return found


def _entry(picture: PictureRecord, folder: Path) -> Entry:
    path, kind = Path(picture["picture"]), picture["kind"]
    part = "good part" if kind == "good" else f"defective part ({kind})"
    called = "anomalous" if picture["is_anomalous"] else "good"
    caption = f"{part}, judged {called}, score {picture['score']:.4g}"
    return Entry(path if path.exists() else folder / path, f"{kind}/{path.stem}", caption)


def galleries(groups: Sequence[tuple[str, Sequence[Entry]]], budget_bytes: int) -> list[Gallery]:
    """Read the pictures of (category, entries) and shrink those that exceed their share.

    Args:
        groups: the categories.
        budget_bytes: for the data URIs of all.
    """
    share = budget_bytes // max(sum(len(entries) for _, entries in groups), 1)
    found = []
    for category, entries in groups:
        images = [(entry, _read(entry.path)) for entry in entries]
        read = [(entry, image) for entry, image in images if image is not None]
        fitted = [_fit(entry, image, share) for entry, image in read]
        pictures = tuple(picture for picture in fitted if picture is not None)
        unread, too_large = len(entries) - len(read), len(read) - len(pictures)
        found.append(Gallery(category, pictures, unread, too_large))
    return found


def _read(path: Path) -> Image.Image | None:
    """Return a picture in RGB; None where it is missing or is none."""
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (OSError, ValueError, Image.DecompressionBombError):
        return None


def _fit(entry: Entry, image: Image.Image, size_bytes: int) -> Picture | None:
    found = shrunk(image, size_bytes)
    return None if found is None else Picture(entry, *found)


def shrunk(image: Image.Image, size_bytes: int) -> tuple[str, int, int] | None:
    """Shrink a picture until its data URI has so many bytes at most.

    Returns:
        The URI, and the width and height in pixels; None where no size fits.
    """
    for width, quality in SIZES:
        scale = min(width / image.width, 1)
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        stream = io.BytesIO()
        smaller = image.resize(size, Image.Resampling.LANCZOS) if scale < 1 else image
        smaller.save(stream, "WEBP", quality=quality)
        uri = f"data:image/webp;base64,{base64.b64encode(stream.getvalue()).decode()}"
        if len(uri) <= size_bytes:
            return uri, *size
    return None
