"""CIFAR-10: both versions against an independent reading, and pickles that are not loaded."""

from __future__ import annotations

import io
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stpm.runtime.errors import DataError
from stpm.train.datasets import (
    GOOD,
    Category,
    image_exists,
    open_category,
    read_image,
    read_images,
)

CLASSES = [
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
]
BATCHES = [f"data_batch_{i}" for i in range(1, 6)]


def loaded(path: Path) -> tuple[list[int], np.ndarray]:
    """Read a batch as torchvision does; only for files written here."""
    batch = pickle.loads(path.read_bytes(), encoding="latin1")
    return batch["labels"], batch["data"].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)


@pytest.fixture
def root(cifar10_root: Path, tmp_path: Path) -> Path:
    """A copy to change."""
    return Path(shutil.copytree(cifar10_root, tmp_path / "cifar10"))


@pytest.fixture
def binary_root(cifar10_root: Path, tmp_path: Path) -> Path:
    """The same images in the binary version."""
    folder = tmp_path / "binary" / "cifar-10-batches-bin"
    folder.mkdir(parents=True)
    for name in (*BATCHES, "test_batch"):
        labels, images = loaded(cifar10_root / "cifar-10-batches-py" / name)
        records = [
            bytes([label]) + image.transpose(2, 0, 1).tobytes()
            for label, image in zip(labels, images, strict=True)
        ]
        (folder / f"{name}.bin").write_bytes(b"".join(records))
    return folder.parent


def pixels(category: Category) -> np.ndarray:
    return np.stack([read_image(path) for path in category.good_images()])


def test_the_normal_class_is_taken_from_all_batches(cifar10_root: Path) -> None:
    category = open_category(cifar10_root, "cat")
    found = pixels(category)
    folder = cifar10_root / "cifar-10-batches-py"
    expected = []
    for name in BATCHES:
        labels, images = loaded(folder / name)
        expected += [image for label, image in zip(labels, images, strict=True) if label == 3]
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == np.uint8
    assert category.folder == folder
    assert category.good_images()[:3] == [
        folder / "data_batch_1/00003",
        folder / "data_batch_1/00013",
        folder / "data_batch_2/00003",
    ]


def test_the_test_set_is_the_whole_one_without_masks(cifar10_root: Path) -> None:
    samples = open_category(cifar10_root, "cat").test_samples()
    labels, images = loaded(cifar10_root / "cifar-10-batches-py/test_batch")
    assert [s.kind for s in samples] == [GOOD if i == 3 else CLASSES[i] for i in labels]
    assert [s.is_anomalous for s in samples] == [i != 3 for i in labels]
    assert not any(s.mask for s in samples)
    np.testing.assert_array_equal([read_image(s.path) for s in samples], images)


def test_both_versions_give_the_same(cifar10_root: Path, binary_root: Path) -> None:
    first, second = (open_category(root, "ship") for root in (cifar10_root, binary_root))
    np.testing.assert_array_equal(pixels(first), pixels(second))
    kinds = [[s.kind for s in c.test_samples()] for c in (first, second)]
    assert kinds[0] == kinds[1]


def test_the_folder_of_batches_is_a_root_as_well(cifar10_root: Path) -> None:
    inside = open_category(cifar10_root / "cifar-10-batches-py", "dog")
    np.testing.assert_array_equal(pixels(inside), pixels(open_category(cifar10_root, "dog")))


def test_images_of_a_batch_are_resized_like_files(cifar10_root: Path) -> None:
    paths = open_category(cifar10_root, "frog").good_images()
    kept, images = read_images(paths, (16, 24))
    assert kept == paths
    assert images.shape == (10, 16, 24, 3)


def test_an_image_exists_as_long_as_its_batch(root: Path) -> None:
    path = open_category(root, "frog").good_images()[0]
    assert image_exists(path)
    path.parent.unlink()
    assert not image_exists(path)


def test_a_batch_that_changes_is_read_again(root: Path, cifar10_root: Path) -> None:
    path = root / "cifar-10-batches-py/data_batch_1/00000"
    before = read_image(path)
    shutil.copy(cifar10_root / "cifar-10-batches-py/data_batch_2", path.parent)
    assert not np.array_equal(read_image(path), before)


def python3_batch(path: Path, **changes: Any) -> bytes:
    """The batch as Python 3 and this NumPy would pickle it, with entries changed."""
    labels, images = loaded(path)
    rows = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
    return pickle.dumps({"labels": labels, "data": rows} | changes, protocol=4)


def test_a_batch_pickled_by_python_3_is_read(root: Path) -> None:
    path = root / "cifar-10-batches-py/test_batch"
    _, images = loaded(path)
    path.write_bytes(python3_batch(path))
    np.testing.assert_array_equal(read_image(path / "00007"), images[7])


class Exploit:
    """Runs a command when it is unpickled."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.system, (self.command,))


@pytest.mark.parametrize("inside", [True, False])
def test_no_code_of_a_pickle_is_run(root: Path, tmp_path: Path, inside: bool) -> None:
    path, trace = root / "cifar-10-batches-py/data_batch_1", tmp_path / "trace"
    exploit = Exploit(f"touch {trace}")
    path.write_bytes(python3_batch(path, filenames=[exploit]) if inside else pickle.dumps(exploit))
    with pytest.raises(DataError, match=r"it refers to \w+\.system, which is not loaded"):
        open_category(root, "cat").good_images()
    assert not trace.exists()


def rows(*shape: int, dtype: Any = np.uint8) -> np.ndarray:
    return np.zeros(shape, dtype)


def pickled(labels: list[int], *shape: int, dtype: Any = np.uint8) -> bytes:
    return pickle.dumps({"labels": labels, "data": np.zeros(shape, dtype)}, protocol=4)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "not a batch of CIFAR-10"),
        (b"no pickle", "not a batch of CIFAR-10"),
        (pickled([1] * 9, 9, 3072)[:5000], "not a batch of CIFAR-10"),
        (pickle.dumps([1, 2]), "no list of labels"),
        (pickle.dumps({"labels": [1], "data": 2}), "its data is no array"),
        (pickled([1], 2, 3072), "1 labels for 2"),
        (pickled([1], 1, 3073), "shape (1, 3073)"),
        (pickled([1], 1, 3072, dtype=np.int8), "type 'i1'"),
        (pickled([1], 1, 3072, dtype=object), "type 'O8'"),
        (pickled([10], 1, 3072), "not in 0 to 9"),
        (pickled([-1], 1, 3072), "out of bounds"),
        (pickled([], 0, 3072), "not in 0 to 9"),
    ],
)
def test_refuses_what_is_no_batch(root: Path, content: bytes, said: str) -> None:
    path = root / "cifar-10-batches-py/test_batch"
    path.write_bytes(content)
    with pytest.raises(DataError) as error:
        open_category(root, "cat").test_samples()
    text = str(error.value)
    assert text.startswith(f"{path}: not a batch of CIFAR-10")
    assert said in text
    assert text.endswith("download it again.")
    assert "\n" not in text


def test_refuses_a_broken_binary_batch(binary_root: Path) -> None:
    path = binary_root / "cifar-10-batches-bin/test_batch.bin"
    content = path.read_bytes()
    for changed, said in (
        (content[:-1], "not a multiple of 3073 bytes"),
        (b"", "not in 0 to 9"),
        (b"\x0a" + content[1:], "not in 0 to 9"),
    ):
        path.write_bytes(changed)
        with pytest.raises(DataError, match=said):
            open_category(binary_root, "cat").test_samples()


def test_a_file_larger_than_any_batch_is_not_read(root: Path) -> None:
    path = root / "cifar-10-batches-py/test_batch"
    with path.open("wb") as file:
        file.truncate(64 * 2**20 + 1)  # sparse
    with pytest.raises(DataError, match="expected at most 67108864 for a batch"):
        open_category(root, "cat").test_samples()


def test_refuses_an_incomplete_set(root: Path) -> None:
    category = open_category(root, "cat")
    for batch, images in (
        ("test_batch", category.test_samples),
        ("data_batch_4", category.good_images),
    ):
        (root / "cifar-10-batches-py" / batch).unlink()
        with pytest.raises(DataError, match=f"{batch} is missing; download CIFAR-10 again"):
            images()


@pytest.mark.parametrize("name", ["00020", "99999", "-1", "cat.png"])
def test_refuses_an_image_that_the_batch_lacks(cifar10_root: Path, name: str) -> None:
    with pytest.raises(DataError, match="expected a number below 20"):
        read_image(cifar10_root / "cifar-10-batches-py/test_batch" / name)


def test_the_images_cannot_be_changed_by_accident(cifar10_root: Path) -> None:
    image = read_image(cifar10_root / "cifar-10-batches-py/test_batch/00000")
    with pytest.raises(ValueError, match="read-only"):
        image[0, 0, 0] = 1


def test_the_written_batches_are_what_pickle_reads(cifar10_root: Path) -> None:
    """The files of these tests have the opcodes of Python 2, as the published ones have."""
    content = (cifar10_root / "cifar-10-batches-py/test_batch").read_bytes()
    batch = pickle.load(io.BytesIO(content), encoding="latin1")
    assert batch.keys() == {"batch_label", "filenames", "labels", "data"}
    assert (batch["data"].shape, batch["data"].dtype) == ((20, 3072), np.uint8)
