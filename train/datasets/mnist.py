"""MNIST one-class: one digit is normal, the other nine are anomalies."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from stpm.runtime.errors import DataError
from stpm.train.datasets.idx import read_idx
from stpm.train.datasets.one_class import OneClassCategory

FOLDERS = ("MNIST/raw", ".")
"""The first is where torchvision puts them."""


class MnistCategory(OneClassCategory):
    """A digit of MNIST as the normal one."""

    LAYOUT: ClassVar[str] = "MNIST: train-images-idx3-ubyte or the same with .gz"
    CLASSES = tuple("0123456789")
    TRAINING_PARTS = ("train",)
    TEST_PART = "t10k"

    @staticmethod
    def find_folder(root: Path) -> Path | None:
        folders = (root / name for name in FOLDERS)
        return next((f for f in folders if _file(f, "train", "images")), None)

    def members(self, part: str) -> list[tuple[Path, str]]:
        images, labels = (_file(self.folder, part, kind) for kind in ("images", "labels"))
        if images is None or labels is None:
            raise DataError(f"{self.folder}: a file of {part} is missing; download MNIST again.")
        digits, count = read_idx(labels), len(read_idx(images))
        if digits.shape != (count,) or digits.max(initial=0) >= len(self.CLASSES):
            raise DataError(
                f"{labels}: got labels of shape {digits.shape} up to {digits.max(initial=0)}, "
                f"expected one below {len(self.CLASSES)} for each of {count} images; download it "
                "again."
            )
        return [(images / f"{i:05}", self.CLASSES[digit]) for i, digit in enumerate(digits)]


def _file(folder: Path, part: str, kind: str) -> Path | None:
    dimensions = {"images": 3, "labels": 1}[kind]
    # The site's files have a hyphen, some archives of them a point.
    stems = (f"{part}-{kind}{mark}idx{dimensions}-ubyte" for mark in "-.")
    paths = (folder / f"{stem}{ending}" for stem in stems for ending in ("", ".gz"))
    return next((path for path in paths if path.is_file()), None)
