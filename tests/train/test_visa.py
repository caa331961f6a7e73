"""VisA: the split of its CSV file, and masks of small labels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from data_sets import write_visa
from PIL import Image

from stpm.runtime.errors import DataError
from stpm.train.datasets import GOOD, open_category, read_mask
from stpm.train.datasets.samples import ANOMALY

SIZE = (24, 32)
LABELS = np.zeros(SIZE, np.uint8)
LABELS[4:10, 5:15] = 1
LABELS[15:20, 20:30] = 7


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_visa(tmp_path, LABELS)
    return tmp_path


def test_follows_the_split_of_the_csv_file(root: Path) -> None:
    category = open_category(root, "candle")
    normal = root / "candle/Data/Images/Normal"
    assert category.folder == root
    assert category.good_images() == [normal / f"{i:03}.JPG" for i in (3, 1, 2)]
    samples = category.test_samples()
    assert [(s.path.name, s.kind) for s in samples] == [
        ("004.JPG", GOOD),
        ("005.JPG", GOOD),
        ("000.JPG", ANOMALY),
        ("001.JPG", ANOMALY),
    ]
    assert [s.mask and s.mask.name for s in samples] == [None, None, "000.png", "001.png"]


def test_every_label_but_0_is_defective(root: Path) -> None:
    _, _, first, second = open_category(root, "candle").test_samples()
    assert first.mask
    assert second.mask
    assert Image.open(first.mask).mode == "L"
    assert Image.open(second.mask).mode == "P"
    for sample in (first, second):
        np.testing.assert_array_equal(read_mask(sample, SIZE), LABELS > 0)
        np.testing.assert_array_equal(read_mask(sample, (12, 16)), LABELS[1::2, 1::2] > 0)


def test_masks_may_be_in_colour(root: Path) -> None:
    sample = open_category(root, "candle").test_samples()[2]
    assert sample.mask
    colours = np.zeros((*SIZE, 4), np.uint8)
    colours[..., 3] = 255
    colours[3, 4, 2] = 1
    Image.fromarray(colours).save(sample.mask)
    mask = read_mask(sample, SIZE)
    assert np.argwhere(mask).tolist() == [[3, 4]]


def remove_image(root: Path) -> None:
    (root / "candle/Data/Images/Normal/002.JPG").unlink()


def remove_mask(root: Path) -> None:
    (root / "candle/Data/Masks/Anomaly/001.png").unlink()


def replace(old: str, new: str) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        path = root / "split_csv/1cls.csv"
        path.write_text(path.read_text().replace(old, new))

    return change


def list_everything(root: Path) -> None:
    category = open_category(root, "candle")
    category.good_images()
    category.test_samples()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (remove_image, "Normal/002.JPG: listed in split_csv/1cls.csv, but there is no such file"),
        (remove_mask, "Anomaly/001.png: listed in split_csv/1cls.csv, but there is no such file"),
        (replace("label", "lable"), "row 2 does not give object, split, label, image, mask"),
        (replace("train,normal", "train,fine"), "row 2 does not give"),
        (replace("candle,test", "candle,later"), "lists no test image of candle"),
        (replace("candle,train", "candle,later"), "lists no train image of candle"),
    ],
)
def test_refuses_a_broken_data_set(root: Path, change: Callable[[Path], None], said: str) -> None:
    change(root)
    with pytest.raises(DataError) as error:
        list_everything(root)
    assert said in str(error.value)
    assert str(error.value).endswith(".")


def test_refuses_a_file_that_is_no_csv(root: Path) -> None:
    (root / "split_csv/1cls.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="not a readable CSV file"):
        open_category(root, "candle")
