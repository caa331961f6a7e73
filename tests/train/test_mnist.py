"""MNIST: IDX files against an independent reading, and files that are not what they seem."""

from __future__ import annotations

import gzip
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest

from stpm.runtime.errors import DataError
from stpm.train.datasets import GOOD, image_exists, open_category, read_image, read_images

IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
HEADER = {IMAGES: 16, LABELS: 8}
"""Bytes before the values, as the site describes them."""


def values(path: Path) -> np.ndarray:
    return np.frombuffer(path.read_bytes()[HEADER[path.name] :], np.uint8)


@pytest.fixture
def root(mnist_root: Path, tmp_path: Path) -> Path:
    """A copy to change."""
    return Path(shutil.copytree(mnist_root, tmp_path / "mnist"))


def test_the_normal_digit_is_taken_with_its_pixels(mnist_root: Path) -> None:
    category = open_category(mnist_root, "7")
    paths = category.good_images()
    assert paths == [mnist_root / IMAGES / f"{i:05}" for i in (7, 17, 27, 37)]
    assert all(map(image_exists, paths))
    expected = values(mnist_root / IMAGES).reshape(40, 28, 28)[7::10]
    found = np.stack([read_image(path) for path in paths])
    assert found.shape == (4, 28, 28, 3)
    for channel in range(3):
        np.testing.assert_array_equal(found[..., channel], expected)


def test_every_digit_of_the_test_set_is_scored(mnist_root: Path) -> None:
    samples = open_category(mnist_root, "3").test_samples()
    assert [sample.kind for sample in samples[:5]] == ["0", "1", "2", GOOD, "4"]
    assert len(samples) == 20
    assert all(sample.mask is None for sample in samples)


@pytest.mark.parametrize("place", [".", "MNIST/raw"])
def test_compressed_files_are_the_same(mnist_root: Path, tmp_path: Path, place: str) -> None:
    folder = tmp_path / place
    folder.mkdir(parents=True, exist_ok=True)
    for path in mnist_root.iterdir():
        with gzip.open(folder / f"{path.name}.gz", "wb") as file:
            file.write(path.read_bytes())
    plain, compressed = (open_category(r, "2").good_images() for r in (mnist_root, tmp_path))
    assert compressed[0].parent.name == f"{IMAGES}.gz"
    for ours, theirs in zip(plain, compressed, strict=True):
        np.testing.assert_array_equal(read_image(ours), read_image(theirs))
    _, resized = read_images(compressed, (14, 14))
    assert resized.shape == (4, 14, 14, 3)


def test_names_with_a_point_are_known(root: Path) -> None:
    before = open_category(root, "0").good_images()
    for path in list(root.iterdir()):
        path.rename(path.with_name(path.name.replace("-idx", ".idx")))
    after = open_category(root, "0").good_images()
    assert [path.name for path in after] == [path.name for path in before]


def test_refuses_an_incomplete_set(root: Path) -> None:
    (root / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(DataError, match="a file of t10k is missing; download MNIST again"):
        open_category(root, "0").test_samples()


def test_refuses_an_image_that_the_file_lacks(mnist_root: Path) -> None:
    for name in ("00040", "-1", "seven"):
        with pytest.raises(DataError, match=r"shape \(40, 28, 28\)"):
            read_image(mnist_root / IMAGES / name)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not an IDX file"),
        (b"\x00\x00\x0d\x03" + bytes(12), "does not begin with the header of an array of bytes"),
        (struct.pack(">HBB3I", 0, 8, 3, 40, 28, 28) + bytes(31359), "contains 31359 values"),
        (struct.pack(">HBB3I", 0, 8, 3, 2**31, 2**31, 2**31), "contains 0 values"),
        (struct.pack(">HBB", 0, 8, 255), "not an IDX file"),
    ],
)
def test_refuses_what_is_no_idx_file(root: Path, content: bytes, message: str) -> None:
    (root / IMAGES).write_bytes(content)
    with pytest.raises(DataError, match=message):
        open_category(root, "0").good_images()


def test_refuses_more_than_any_file_of_mnist_holds(root: Path) -> None:
    with (root / IMAGES).open("wb") as file:
        file.truncate(64 * 2**20 + 1)  # sparse
    with pytest.raises(DataError, match="more than 67108864 bytes"):
        open_category(root, "0").good_images()


def test_refuses_labels_that_do_not_fit(root: Path) -> None:
    path = root / LABELS
    path.write_bytes(path.read_bytes()[:-1] + b"\x0a")
    with pytest.raises(DataError, match=r"labels of shape \(40,\) up to 10, expected one below 10"):
        open_category(root, "0").good_images()
    path.write_bytes((root / "t10k-labels-idx1-ubyte").read_bytes())
    with pytest.raises(DataError, match="for each of 40 images"):
        open_category(root, "0").good_images()
