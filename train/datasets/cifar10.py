"""CIFAR-10 one-class: one class is normal, the other nine are anomalies."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from stpm.runtime.errors import DataError
from stpm.train.datasets.batches import read_batch
from stpm.train.datasets.samples import GOOD, Sample

CLASSES = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)
"""In the order of the labels."""
FOLDERS = ("cifar-10-batches-py", "cifar-10-batches-bin", ".")
TRAINING_BATCHES = tuple(f"data_batch_{i}" for i in range(1, 6))
TEST_BATCH = "test_batch"


@dataclass(frozen=True)
class Cifar10Category:
    """A class of CIFAR-10 as the normal one; the test set is the whole one. See `Category`.

    The images have no masks: only image AUROC can be measured.
    """

    LAYOUT: ClassVar[str] = "CIFAR-10: cifar-10-batches-py/data_batch_1 or the binary version"

    root: Path
    name: str

    @property
    def folder(self) -> Path:
        found = _batch_folder(self.root)
        assert found is not None, "the root was recognised"
        return found

    @staticmethod
    def recognises(root: Path) -> bool:
        return _batch_folder(root) is not None

    @staticmethod
    def names(root: Path) -> list[str]:  # noqa: ARG004, the same below every root
        return list(CLASSES)

    def good_images(self) -> list[Path]:
        images = [
            path
            for batch in TRAINING_BATCHES
            for path, name in self._members(batch)
            if name == self.name
        ]
        if not images:
            raise DataError(f"{self.folder}: holds no image of {self.name}; download it again.")
        return images

    def test_samples(self) -> list[Sample]:
        return [
            Sample(path, GOOD if name == self.name else name, None)
            for path, name in self._members(TEST_BATCH)
        ]

    def _members(self, batch: str) -> list[tuple[Path, str]]:
        """Return the path and the class of each image of a batch."""
        path = _batch_file(self.folder, batch)
        if path is None:
            raise DataError(f"{self.folder}: {batch} is missing; download CIFAR-10 again.")
        labels, _ = read_batch(path)
        return [(path / f"{i:05}", CLASSES[label]) for i, label in enumerate(labels)]


def _batch_folder(root: Path) -> Path | None:
    folders = (root / name for name in FOLDERS)
    return next((f for f in folders if _batch_file(f, TRAINING_BATCHES[0])), None)


def _batch_file(folder: Path, batch: str) -> Path | None:
    paths = (folder / batch, folder / f"{batch}.bin")
    return next((path for path in paths if path.is_file()), None)
