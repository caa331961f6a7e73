"""The layout of MVTec AD: a folder a category, a folder a kind of defect, a mask an image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from stpm.runtime.errors import DataError
from stpm.runtime.images.listing import folders_in, list_images
from stpm.train.datasets.samples import GOOD, GOOD_FOLDERS, Sample


@dataclass(frozen=True)
class MvtecCategory:
    """A category of MVTec AD, or of any data set in its layout. See `Category`."""

    LAYOUT: ClassVar[str] = "MVTec AD: CATEGORY/train/good and CATEGORY/test/KIND"

    root: Path
    name: str

    @property
    def folder(self) -> Path:
        train = self.root / self.name / "train"
        return _good_folder(train) or train / GOOD

    @staticmethod
    def recognises(root: Path) -> bool:
        return bool(MvtecCategory.names(root))

    @staticmethod
    def names(root: Path) -> list[str]:
        return sorted(
            path.name
            for path in folders_in(root)
            if (path / "train").is_dir() or (path / "test").is_dir()
        )

    def good_images(self) -> list[Path]:
        train = self.root / self.name / "train"
        if train.is_dir() and not _good_folder(train):
            names = ", ".join(path.name for path in folders_in(train)) or "no folder"
            raise DataError(
                f"{train}: contains {names}, expected a folder {GOOD}; rename the folder of "
                "good images."
            )
        return list_images(self.folder)

    def test_samples(self) -> list[Sample]:
        return labelled_samples(self.root / self.name)


def labelled_samples(category: Path) -> list[Sample]:
    """List the test images of an MVTec AD category with their masks.

    Args:
        category: a folder with `test/KIND/NAME.png` and `ground_truth/KIND/NAME_mask.png`. A
            category without `ground_truth` gives samples without masks.

    Raises:
        DataError: a folder is missing or empty, or masks and images do not pair up.
    """
    root = category / "test"
    if not root.is_dir():
        raise DataError(f"{root}: there is no such folder; expected the layout of MVTec AD.")
    samples = []
    good = _good_folder(root)
    for folder in folders_in(root):
        kind = GOOD if folder == good else folder.name
        images = list_images(folder)
        masks = _masks(category, kind, images)
        samples += [Sample(p, kind, masks.get(p.stem)) for p in images]
    if not samples:
        raise DataError(f"{root}: contains no folder; expected test/good and test/KIND folders.")
    return samples


def _good_folder(parent: Path) -> Path | None:
    """Find the folder of good images in a folder, whatever its makers call it.

    Raises:
        DataError: there are several.
    """
    if not parent.is_dir():
        return None
    found = [path for path in folders_in(parent) if path.name.lower() in GOOD_FOLDERS]
    if len(found) > 1:
        names = " and ".join(path.name for path in found)
        raise DataError(
            f"{parent}: contains {names}, expected one folder of good images; merge them."
        )
    return found[0] if found else None


def _masks(category: Path, kind: str, images: Sequence[Path]) -> dict[str, Path]:
    folder = category / "ground_truth" / kind
    if kind == GOOD or not (category / "ground_truth").is_dir():
        return {}
    masks = {p.stem.removesuffix("_mask"): p for p in list_images(folder)}
    stems = {p.stem for p in images}
    for stem, count in Counter(p.stem for p in images).items():
        if count > 1:
            raise DataError(
                f"{images[0].parent}: contains {count} images named {stem}, which would "
                f"share the mask {stem}_mask; rename all but one, and their masks."
            )
    for stem in sorted(masks.keys() - stems):
        raise DataError(f"{masks[stem]}: there is no image {stem} in test/{kind}; remove the mask.")
    for stem in sorted(stems - masks.keys()):
        raise DataError(f"{folder}: the mask {stem}_mask.png is missing; add it.")
    return masks
