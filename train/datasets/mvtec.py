"""The layout of MVTec AD: a folder a category, a folder a kind of defect, a mask an image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from stpm.runtime.errors import DataError
from stpm.train.datasets.images import list_images
from stpm.train.datasets.samples import GOOD, Sample


@dataclass(frozen=True)
class MvtecCategory:
    """A category of MVTec AD, or of any data set in its layout. See `Category`."""

    LAYOUT: ClassVar[str] = "MVTec AD: CATEGORY/train/good and CATEGORY/test/KIND"

    root: Path
    name: str

    @property
    def folder(self) -> Path:
        return self.root / self.name / "train" / GOOD

    @staticmethod
    def recognises(root: Path) -> bool:
        return bool(MvtecCategory.names(root))

    @staticmethod
    def names(root: Path) -> list[str]:
        return sorted(
            path.name
            for path in root.iterdir()
            if (path / "train" / GOOD).is_dir() or (path / "test").is_dir()
        )

    def good_images(self) -> list[Path]:
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
    for folder in sorted(p for p in root.iterdir() if p.is_dir()):
        images = list_images(folder)
        masks = _masks(category, folder.name, images)
        samples += [Sample(p, folder.name, masks.get(p.stem)) for p in images]
    if not samples:
        raise DataError(f"{root}: holds no folder; expected test/good and test/KIND folders.")
    return samples


def _masks(category: Path, kind: str, images: Sequence[Path]) -> dict[str, Path]:
    folder = category / "ground_truth" / kind
    if kind == GOOD or not (category / "ground_truth").is_dir():
        return {}
    masks = {p.stem.removesuffix("_mask"): p for p in list_images(folder)}
    stems = {p.stem for p in images}
    for stem in sorted(masks.keys() - stems):
        raise DataError(f"{masks[stem]}: there is no image {stem} in test/{kind}; remove the mask.")
    for stem in sorted(stems - masks.keys()):
        raise DataError(f"{folder}: the mask {stem}_mask.png is missing; add it.")
    return masks
