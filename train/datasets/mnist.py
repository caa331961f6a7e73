"""MNIST one-class: one digit is normal, the other nine are anomalies."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from stpm.runtime.errors import DataError
from stpm.train.datasets.idx import read_idx
from stpm.train.datasets.samples import GOOD, Sample

DIGITS = tuple("0123456789")
FOLDERS = ("MNIST/raw", ".")
"""The first is where torchvision puts them."""


@dataclass(frozen=True)
class MnistCategory:
    """A digit of MNIST as the normal one; the test set is the whole one. See `Category`.

    The images have no masks: only image AUROC can be measured.
    """

    LAYOUT: ClassVar[str] = "MNIST: train-images-idx3-ubyte or the same with .gz"

    root: Path
    name: str

    @property
    def folder(self) -> Path:
        found = _folder(self.root)
        assert found is not None, "the root was recognised"
        return found

    @staticmethod
    def recognises(root: Path) -> bool:
        return _folder(root) is not None

    @staticmethod
    def names(root: Path) -> list[str]:  # noqa: ARG004, the same below every root
        return list(DIGITS)

    def good_images(self) -> list[Path]:
        images = [path for path, name in self._members("train") if name == self.name]
        if not images:
            raise DataError(f"{self.folder}: holds no image of {self.name}; download it again.")
        return images

    def test_samples(self) -> list[Sample]:
        return [
            Sample(path, GOOD if name == self.name else name, None)
            for path, name in self._members("t10k")
        ]

    def _members(self, part: str) -> list[tuple[Path, str]]:
        """Return the path and the digit of each image of a part."""
        images, labels = (_file(self.folder, part, kind) for kind in ("images", "labels"))
        if images is None or labels is None:
            raise DataError(f"{self.folder}: a file of {part} is missing; download MNIST again.")
        digits, count = read_idx(labels), len(read_idx(images))
        if digits.shape != (count,) or digits.max(initial=0) >= len(DIGITS):
            raise DataError(
                f"{labels}: got labels of shape {digits.shape} up to {digits.max(initial=0)}, "
                f"expected one below {len(DIGITS)} for each of {count} images; download it again."
            )
        return [(images / f"{i:05}", DIGITS[digit]) for i, digit in enumerate(digits)]


def _folder(root: Path) -> Path | None:
    folders = (root / name for name in FOLDERS)
    return next((f for f in folders if _file(f, "train", "images")), None)


def _file(folder: Path, part: str, kind: str) -> Path | None:
    dimensions = {"images": 3, "labels": 1}[kind]
    # The site's files have a hyphen, some archives of them a point.
    stems = (f"{part}-{kind}{mark}idx{dimensions}-ubyte" for mark in "-.")
    paths = (folder / f"{stem}{ending}" for stem in stems for ending in ("", ".gz"))
    return next((path for path in paths if path.is_file()), None)
