"""ShanghaiTech Campus: frames in order, their labels and masks."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from data_sets import FRAME_SIZE as SIZE
from data_sets import write_frames, write_shanghaitech

from stpm.runtime.errors import DataError
from stpm.train.datasets import GOOD, category_names, open_category, read_mask
from stpm.train.datasets.samples import ANOMALY


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_shanghaitech(tmp_path)
    return tmp_path


def test_a_category_is_a_scene_or_all_of_them(root: Path) -> None:
    assert category_names(root) == ["01", "02", "all"]
    frames = root / "training/frames"
    first = [frames / f"01_001/{i:03}.jpg" for i in range(3)]
    first += [frames / f"01_002/{i:03}.jpg" for i in range(2)]
    category = open_category(root, "01")
    assert category.folder == frames
    assert category.good_images() == first
    second = open_category(root, "02").good_images()
    assert open_category(root, "all").good_images() == first + second
    assert len(second) == 2
    assert [len(open_category(root, s).test_samples()) for s in ("01", "02", "all")] == [7, 2, 9]


def test_each_frame_has_its_own_label_and_mask(root: Path) -> None:
    samples = open_category(root, "01").test_samples()
    assert [s.kind for s in samples[:4]] == [GOOD, ANOMALY, GOOD, ANOMALY]
    assert len({s.name for s in samples}) == len(samples)
    assert samples[4].name == "01_0015_000"
    masks = np.load(root / "testing/test_pixel_mask/01_0014.npy")
    for sample, mask in zip(samples[:4], masks, strict=True):
        np.testing.assert_array_equal(read_mask(sample, SIZE), mask == 1)
    np.testing.assert_array_equal(read_mask(samples[1], (5, 8)), masks[1, 1::2, 1::2] == 1)


def test_frames_are_ordered_by_their_number(root: Path) -> None:
    video = root / "testing/frames/02_0128"
    shutil.rmtree(video)
    write_frames(video, ["1000", "098", "999"])
    for folder, shape in (("test_frame_mask", (3,)), ("test_pixel_mask", (3, *SIZE))):
        masks = np.zeros(shape, np.uint8)
        masks[2] = 1
        np.save(root / f"testing/{folder}/02_0128.npy", masks)
    samples = open_category(root, "02").test_samples()
    assert [s.path.stem for s in samples] == ["098", "999", "1000"]
    assert [s.is_anomalous for s in samples] == [False, False, True]
    assert read_mask(samples[2], SIZE).all()
    assert not read_mask(samples[1], SIZE).any()


def test_videos_that_are_not_extracted_say_how(root: Path) -> None:
    (root / "training/frames").rename(root / "training/videos")
    with pytest.raises(DataError, match=r"only training/videos; extract .* ffmpeg -i"):
        open_category(root, "01").good_images()


def shorten(folder: str) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        path = root / "testing" / folder / "01_0015.npy"
        np.save(path, np.load(path)[1:])

    return change


def remove(name: str) -> Callable[[Path], None]:
    return lambda root: (root / "testing" / name).unlink()


def flatten(root: Path) -> None:
    path = root / "testing/test_pixel_mask/01_0015.npy"
    np.save(path, np.load(path)[0])


def pickled(root: Path) -> None:
    np.save(root / "testing/test_frame_mask/01_0015.npy", np.array([{}], object))


def damage(root: Path) -> None:
    (root / "testing/test_frame_mask/01_0015.npy").write_bytes(pickle.dumps(1))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (shorten("test_frame_mask"), "01_0015.npy: has shape (2,), expected 1 dimensions"),
        (shorten("test_pixel_mask"), "01_0015.npy: has shape (2, 10, 16), expected 3 dimensions"),
        (flatten, "01_0015.npy: has shape (10, 16), expected 3 dimensions"),
        (remove("test_frame_mask/01_0014.npy"), "01_0014.npy: there is no such file"),
        (remove("test_pixel_mask/01_0014.npy"), "01_0014.npy: there is no such file"),
        (remove("frames/01_0014/002.jpg"), "counts 3 frames"),
        (pickled, "01_0015.npy: not a readable .npy array"),
        (damage, "01_0015.npy: not a readable .npy array"),
    ],
)
def test_refuses_masks_that_do_not_fit(
    root: Path, change: Callable[[Path], None], said: str
) -> None:
    change(root)
    with pytest.raises(DataError) as error:
        open_category(root, "01").test_samples()
    assert said in str(error.value)
    assert str(error.value).endswith(".")


def test_refuses_a_scene_without_test_videos(root: Path) -> None:
    shutil.rmtree(root / "testing/frames/02_0128")
    with pytest.raises(DataError, match="contains no videos of scene 02"):
        open_category(root, "02").test_samples()


def test_refuses_a_set_without_test_frames(root: Path) -> None:
    shutil.rmtree(root / "testing")
    category = open_category(root, "01")
    assert category.good_images()
    with pytest.raises(DataError, match="there is no such folder"):
        category.test_samples()
