"""What is kept of a line: a folder of images, a station's record, or a labelled data set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from stpm.runtime.errors import DataError
from stpm.runtime.images.listing import counts, images_below
from stpm.runtime.live.read_record import LAST, PATTERN, read_record
from stpm.runtime.live.replay_record import DECIDED, kept_image
from stpm.runtime.live.sinks.pictures import OVERLAY
from stpm.train.datasets import (
    Sample,
    category_names,
    find_category,
    labelled_samples,
    open_category,
)


@dataclass(frozen=True)
class Kept:
    """An image of an archive.

    Attributes:
        name: in the archive.
        path: of the file; see `stpm.train.datasets.read_image`.
        sample: what is known of it where the archive has labels.
        pixels: their hash in the record that names it; "" without one.
    """

    name: str
    path: Path
    sample: Sample | None = None
    pixels: str = ""


@dataclass(frozen=True)
class Archive:
    """The images of an archive.

    Attributes:
        title: what it is.
        images: at least one.
        not_kept: images that a record names and that are not there any more.
        left_out: other files, by what they are.
    """

    title: str
    images: Sequence[Kept]
    not_kept: int = 0
    left_out: Counter[str] = field(default_factory=Counter)


def open_archive(
    path: Path, model: Path, category: str | None = None, *, without: Path | None = None
) -> Archive:
    """Find out what an archive is, and list its images.

    Args:
        path: of a record, of the root of a data set, of a category in the layout of MVTec AD, or
            of any folder of images.
        model: a bundle whose name begins with the category, as for `find_category`.
        category: of a data set; None takes the model's.
        without: a folder of pictures, which may be below that of the images.

    Raises:
        DataError: there is no such folder, it holds no image, its record was altered, or it is a
            data set that has no such category.
    """
    if not path.is_dir():
        raise DataError(f"{path}: there is no such folder; check the path of the archive.")
    if (path / LAST).exists() or any(path.glob(PATTERN)):
        if category is not None:
            raise DataError(f"{path}: is a record, which has no labels; leave out --category.")
        found = _of_record(path)
    elif category is not None or _is_data_set(path):
        name = category or find_category(model, path)
        found = _of_samples(name, open_category(path, name).test_samples())
    elif _is_category(path):
        found = _of_samples(path.resolve().name, labelled_samples(path))
    else:
        found = _of_folder(path, without)
    if not found.images:
        beside = f" (left out: {counts(found.left_out)})" if found.left_out else ""
        gone = f"; {found.not_kept} that its record names are not there" if found.not_kept else ""
        raise DataError(f"{path}: holds no image to score{beside}{gone}; check the path.")
    return found


def _is_data_set(path: Path) -> bool:
    try:
        return bool(category_names(path))
    except DataError:
        return False


def _is_category(path: Path) -> bool:
    """Tell a category of MVTec AD, whose masks are no images to score."""
    return (path / "test").is_dir() and any((path / x).is_dir() for x in ("train", "ground_truth"))


def _of_samples(category: str, samples: Sequence[Sample]) -> Archive:
    images = [Kept(f"{s.kind}/{s.name}{s.path.suffix}", s.path, s) for s in samples]
    return Archive(f"labelled test images of {category}", images)


def _of_folder(path: Path, without: Path | None) -> Archive:
    found = images_below(path, without=without)
    known = set(found.images)
    overlays = {p for p in known if p.stem.endswith(OVERLAY) and _pictured(p) in known}
    left_out = found.left_out + Counter({"overlays": len(overlays)} if overlays else {})
    images = [Kept(p.relative_to(path).as_posix(), p) for p in found.images if p not in overlays]
    return Archive("folder of images", images, left_out=left_out)


def _pictured(overlay: Path) -> Path:
    return overlay.with_stem(overlay.stem.removesuffix(OVERLAY))


def _of_record(path: Path) -> Archive:
    """List the images that a record has a verdict of, each once.

    Of a file that was written again and again only the last is there.
    """
    images: dict[Path, Kept] = {}
    named: set[tuple[Path, str]] = set()
    left_out: Counter[str] = Counter()
    for line in read_record(path):
        if line.problem:
            raise DataError(
                f"{path}: {line.place} {line.problem}; name the folder of its images instead."
            )
        entry = line.entry
        if entry["verdict"] not in DECIDED:
            left_out[f"recorded as {entry['verdict']}"] += 1
            continue
        name = str(entry.get("kept", entry["image"]))  # a camera numbers its frames anew
        image = Kept(name, kept_image(path, entry), pixels=str(entry["sha256"]))
        named.add((image.path, image.pixels))
        if image.path.is_file():
            images[image.path] = image
    not_kept = named - {(image.path, image.pixels) for image in images.values()}
    return Archive("record of a station", list(images.values()), len(not_kept), left_out)
