"""VisA: images of twelve objects, split by a CSV file."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from stpm.runtime.errors import DataError
from stpm.train.datasets.samples import ANOMALY, GOOD, Sample

SPLIT = Path("split_csv/1cls.csv")
COLUMNS = ("object", "split", "label", "image", "mask")
KINDS = {"normal": GOOD, "anomaly": ANOMALY}


@dataclass(frozen=True)
class VisaCategory:
    """An object of VisA with its one-class split. See `Category`.

    Source: github.com/amazon-science/spot-diff, `split_csv/1cls.csv` and `utils/prepare_data.py`
    (masks hold small labels; any but 0 is defective).
    """

    LAYOUT: ClassVar[str] = f"VisA: {SPLIT}"

    root: Path
    name: str

    @property
    def folder(self) -> Path:
        return self.root

    @staticmethod
    def recognises(root: Path) -> bool:
        return (root / SPLIT).is_file()

    @staticmethod
    def names(root: Path) -> list[str]:
        return sorted({row["object"] for row in _rows(root / SPLIT)})

    def good_images(self) -> list[Path]:
        return [sample.path for sample in self._samples("train") if not sample.is_anomalous]

    def test_samples(self) -> list[Sample]:
        return self._samples("test")

    def _samples(self, split: str) -> list[Sample]:
        samples = []
        for row in _rows(self.root / SPLIT):
            if (row["object"], row["split"]) == (self.name, split):
                mask = self._file(row["mask"]) if row["mask"] else None
                samples.append(
                    Sample(self._file(row["image"]), KINDS[row["label"]], mask, mask_is_labels=True)
                )
        if not samples:
            raise DataError(
                f"{self.root / SPLIT}: lists no {split} image of {self.name}; download it again."
            )
        return samples

    def _file(self, name: str) -> Path:
        path = self.root / name
        if not path.is_file():
            raise DataError(f"{path}: listed in {SPLIT}, but there is no such file; restore it.")
        return path


def _rows(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file, restval=""))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not a readable CSV file ({error}); download it again.") from error
    for number, row in enumerate(rows, start=2):
        if not set(COLUMNS) <= row.keys() or row["label"] not in KINDS:
            raise DataError(
                f"{path}: row {number} does not give {', '.join(COLUMNS)} with a label of "
                f"{' or '.join(KINDS)}; download it again."
            )
    return rows
