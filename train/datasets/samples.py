"""What a data set gives: good images to train on, labelled ones to test on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

GOOD = "good"
"""The kind of test images without a defect."""

GOOD_FOLDERS = frozenset({"good", "normal", "ok"})
"""What people call the folder of good images, in lower case."""

ANOMALY = "anomaly"
"""The kind of defective test images where the data set names no kinds."""


@dataclass(frozen=True)
class Sample:
    """One test image.

    Attributes:
        path: the image; see `read_image` for paths inside a file.
        kind: of defect, `GOOD` for none.
        mask: its ground truth, if there is one.
        mask_is_labels: whether each of the mask's values but 0 is a kind of defect, as the data
            set's makers say; otherwise it holds two values.
        video: the one that a frame is of; empty for photographs.
    """

    path: Path
    kind: str
    mask: Path | None
    mask_is_labels: bool = False
    video: str = ""

    @property
    def name(self) -> str:
        """The image's name without suffix, the only one among its kind."""
        return f"{self.video}_{self.path.stem}" if self.video else self.path.stem

    @property
    def is_anomalous(self) -> bool:
        """Whether the part is labelled as defective."""
        return self.kind != GOOD


class Category(Protocol):
    """One normal class of a data set. Images are listed when asked for, and read later."""

    LAYOUT: ClassVar[str]
    """What is found below the root of such a data set, in a line."""

    def __init__(self, root: Path, name: str) -> None: ...

    @property
    def folder(self) -> Path:
        """The folder that holds the training images, directly or below."""

    @staticmethod
    def recognises(root: Path) -> bool:
        """Whether the folder is the root of such a data set."""

    @staticmethod
    def names(root: Path) -> list[str]:
        """The categories below a root that is recognised."""

    def good_images(self) -> list[Path]:
        """List the normal training images.

        Raises:
            DataError: there are none, or the layout is broken.
        """

    def test_samples(self) -> list[Sample]:
        """List the labelled test images.

        Raises:
            DataError: there are none, or the layout is broken.
        """
