"""Data sets of whole classes: one class is normal, the others are anomalies."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from stpm.runtime.errors import DataError
from stpm.train.datasets.samples import GOOD, Sample


@dataclass(frozen=True)
class OneClassCategory(ABC):
    """A class as the normal one; the test set is the whole one. See `Category`.

    The images have no masks: only image AUROC can be measured.

    Attributes:
        CLASSES: in the order of the labels.
        TRAINING_PARTS, TEST_PART: of the data set, as `members` knows them.
    """

    LAYOUT: ClassVar[str]
    CLASSES: ClassVar[tuple[str, ...]]
    TRAINING_PARTS: ClassVar[tuple[str, ...]]
    TEST_PART: ClassVar[str]

    root: Path
    name: str

    @staticmethod
    @abstractmethod
    def find_folder(root: Path) -> Path | None:
        """Return the folder at or below the root that holds the files; None if there is none."""

    @abstractmethod
    def members(self, part: str) -> list[tuple[Path, str]]:
        """Return the path and the class of each image of a part.

        Raises:
            DataError: a file is missing or malformed.
        """

    @property
    def folder(self) -> Path:
        found = self.find_folder(self.root)
        assert found is not None, "the root was recognised"
        return found

    @classmethod
    def recognises(cls, root: Path) -> bool:
        return cls.find_folder(root) is not None

    @classmethod
    def names(cls, root: Path) -> list[str]:  # noqa: ARG003, the same below every root
        return list(cls.CLASSES)

    def good_images(self) -> list[Path]:
        members = (member for part in self.TRAINING_PARTS for member in self.members(part))
        images = [path for path, name in members if name == self.name]
        if not images:
            raise DataError(f"{self.folder}: contains no images of {self.name}; download it again.")
        return images

    def test_samples(self) -> list[Sample]:
        return [
            Sample(path, GOOD if name == self.name else name, None)
            for path, name in self.members(self.TEST_PART)
        ]
