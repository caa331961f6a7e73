"""CIFAR-10 one-class: one class is normal, the other nine are anomalies."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from stpm.runtime.errors import DataError
from stpm.train.datasets.cifar10_files import read_batch
from stpm.train.datasets.one_class import OneClassCategory

FOLDERS = ("cifar-10-batches-py", "cifar-10-batches-bin", ".")


class Cifar10Category(OneClassCategory):
    """A class of CIFAR-10 as the normal one."""

    LAYOUT: ClassVar[str] = "CIFAR-10: cifar-10-batches-py/data_batch_1 or the binary version"
    CLASSES = (
        *("airplane", "automobile", "bird", "cat", "deer"),
        *("dog", "frog", "horse", "ship", "truck"),
    )
    TRAINING_PARTS = tuple(f"data_batch_{i}" for i in range(1, 6))
    TEST_PART = "test_batch"

    @staticmethod
    def find_folder(root: Path) -> Path | None:
        folders = (root / name for name in FOLDERS)
        return next((f for f in folders if _batch_file(f, "data_batch_1")), None)

    def members(self, part: str) -> list[tuple[Path, str]]:
        path = _batch_file(self.folder, part)
        if path is None:
            raise DataError(f"{self.folder}: {part} is missing; download CIFAR-10 again.")
        labels, _ = read_batch(path)
        return [(path / f"{i:05}", self.CLASSES[label]) for i, label in enumerate(labels)]


def _batch_file(folder: Path, batch: str) -> Path | None:
    paths = (folder / batch, folder / f"{batch}.bin")
    return next((path for path in paths if path.is_file()), None)
