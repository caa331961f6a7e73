"""The pictures that results name, small enough to stand in a page."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from stpm.benchmarks.records.accuracy import AccuracyRecord
from stpm.benchmarks.records.accuracy import Picture as PictureRecord
from stpm.benchmarks.records.result_file import Record
from stpm.benchmarks.records.shadow import ShadowRecord

PER_GROUP = 16
SIZES = ((1000, 72), (800, 68), (640, 62), (480, 55), (320, 40))
"""Widths in pixels and WebP qualities; a picture takes the first with which it fits."""


@dataclass(frozen=True)
class Entry:
    """A picture that a result names: the file, what the image is called, what it shows."""

    path: Path
    name: str
    caption: str


@dataclass(frozen=True)
class Group:
    """Pictures that belong together.

    Attributes:
        title: the category, or what was compared.
        models: that it is of.
        entries: the first pictures that a result names.
        panels: what each of them shows.
        order: of them, in a sentence.
        command: that makes them.
    """

    title: str
    models: str
    entries: Sequence[Entry]
    panels: str
    order: str
    command: str


@dataclass(frozen=True)
class Picture:
    """A picture in the page: its entry, a data URI, its size in pixels."""

    entry: Entry
    uri: str
    width: int
    height: int


@dataclass(frozen=True)
class Gallery:
    """A group's pictures, and how many of those wanted are not among them.

    Attributes:
        group: what they are of.
        pictures: in its order.
        unread: files that are missing or no pictures.
        too_large: pictures that the page has no room for.
    """

    group: Group
    pictures: tuple[Picture, ...]
    unread: int
    too_large: int


def groups_of(content: Record, folder: Path) -> list[Group]:
    """Return the first pictures that a result names, by what they are of.

    Args:
        content: of the result file.
        folder: of the result file; a path that is not found from the working directory is taken
            from here.
    """
    match content["kind"]:
        case "accuracy":
            return _of_accuracy(content, folder)
        case "shadow":
            return _of_shadow(content, folder)
        case _:
            return []


def _of_accuracy(content: AccuracyRecord, folder: Path) -> list[Group]:
    return [
        Group(
            category,
            ", ".join(content["models"]),
            [_entry(picture, folder) for picture in pictures[:PER_GROUP]],
            panels="Input, heat map and overlay",
            order="The most doubtful first: good parts from the highest score down and defective "
            "parts from the lowest score up, alternating. Each picture shows input, heat map, "
            "overlay and, for a defect, the ground truth.",
            command="stpm-bench accuracy --gallery DIR",
        )
        for category, pictures in content["gallery"].items()
    ]


def _of_shadow(content: ShadowRecord, folder: Path) -> list[Group]:
    entries = [
        Entry(_found(picture["picture"], folder), picture["image"], picture["caption"])
        for picture in content["gallery"][:PER_GROUP]
    ]
    group = Group(
        f"{content['new']['name']} in place of {content['old']['name']}",
        content["new"]["name"],
        entries,
        panels="Input and maps of both bundles",
        order="Changed decisions, the worst first: those where the new bundle is known to be "
        "wrong, then parts that it passes and the old one rejects. The old one's map is above.",
        command="stpm-bench shadow --gallery DIR",
    )
    return [group] if entries else []


def _found(picture: str, folder: Path) -> Path:
    path = Path(picture)
    return path if path.exists() else folder / path


def _entry(picture: PictureRecord, folder: Path) -> Entry:
    path, kind = Path(picture["picture"]), picture["kind"]
    part = "good part" if kind == "good" else f"defective part ({kind})"
    called = "anomalous" if picture["is_anomalous"] else "good"
    caption = f"{part}, judged {called}, score {picture['score']:.4g}"
    return Entry(_found(picture["picture"], folder), f"{kind}/{path.stem}", caption)


def galleries(groups: Sequence[Group], budget_bytes: int) -> list[Gallery]:
    """Read the pictures of groups and shrink those that exceed their share.

    Args:
        groups: of pictures.
        budget_bytes: for the data URIs of all.
    """
    share = budget_bytes // max(sum(len(group.entries) for group in groups), 1)
    found = []
    for group in groups:
        images = [(entry, _read(entry.path)) for entry in group.entries]
        read = [(entry, image) for entry, image in images if image is not None]
        fitted = [_fit(entry, image, share) for entry, image in read]
        pictures = tuple(picture for picture in fitted if picture is not None)
        unread, too_large = len(group.entries) - len(read), len(read) - len(pictures)
        found.append(Gallery(group, pictures, unread, too_large))
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
