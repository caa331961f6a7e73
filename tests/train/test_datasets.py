"""Data sets on disk: pairing, bad files, the split, and what is said when a folder is wrong."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from stpm.runtime.errors import DataError
from stpm.train import datasets
from stpm.train.datasets import (
    Sample,
    data_hash,
    list_images,
    note_unused_range,
    read_images,
    read_mask,
    split_held_out,
)


def refusal(function: Callable[..., object], *arguments: object) -> str:
    with pytest.raises(DataError) as error:
        function(*arguments)
    text = str(error.value)
    assert "\n" not in text
    assert text.endswith(".")
    return text


def save(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def noise(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture
def category(data_root: Path, tmp_path: Path) -> Path:
    """A copy to change."""
    return Path(shutil.copytree(data_root / "weave", tmp_path / "weave"))


def test_lists_images_by_name_and_nothing_else(tmp_path: Path) -> None:
    for name in ("b.png", "a.JPG", "c.tiff", "notes.txt", ".hidden"):
        (tmp_path / name).touch()
    save(tmp_path / "below/d.png", noise(0, 4, 4))
    assert [p.name for p in list_images(tmp_path)] == ["a.JPG", "b.png", "c.tiff"]


def test_refuses_folders_without_images(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    assert "contains no images; expected files ending in .bmp, " in refusal(list_images, tmp_path)
    for absent in (tmp_path / "absent", tmp_path / "notes.txt"):
        assert refusal(list_images, absent).startswith(f"{absent}: there is no such folder")


def test_pairs_images_with_their_masks(data_root: Path) -> None:
    weave = data_root / "weave"
    good = [Sample(weave / f"test/good/{i:03}.png", "good", None) for i in range(4)]
    hole = [
        Sample(
            weave / f"test/hole/{i:03}.png", "hole", weave / f"ground_truth/hole/{i:03}_mask.png"
        )
        for i in range(4)
    ]
    samples = datasets.labelled_samples(weave)
    assert samples == good + hole
    assert [s.is_anomalous for s in samples] == [False] * 4 + [True] * 4


def test_masks_without_the_suffix_pair_as_well(category: Path) -> None:
    for path in sorted((category / "ground_truth/hole").iterdir()):
        path.rename(path.with_name(path.name.replace("_mask", "")))
    masks = [s.mask for s in datasets.labelled_samples(category) if s.mask]
    assert [m.name for m in masks] == ["000.png", "001.png", "002.png", "003.png"]


def test_a_category_without_masks_is_welcome(category: Path) -> None:
    shutil.rmtree(category / "ground_truth")
    samples = datasets.labelled_samples(category)
    assert len(samples) == 8
    assert not any(s.mask for s in samples)


def remove_mask(category: Path) -> None:
    (category / "ground_truth/hole/002_mask.png").unlink()


def add_mask(category: Path) -> None:
    save(category / "ground_truth/hole/009_mask.png", noise(0, 64, 64))


def remove_kind_of_masks(category: Path) -> None:
    shutil.rmtree(category / "ground_truth/hole")


def empty_kind_of_masks(category: Path) -> None:
    for path in (category / "ground_truth/hole").iterdir():
        path.unlink()


def add_empty_kind(category: Path) -> None:
    (category / "test/stain").mkdir()


def remove_kinds(category: Path) -> None:
    shutil.rmtree(category / "test")
    (category / "test").mkdir()


def remove_test(category: Path) -> None:
    shutil.rmtree(category / "test")


@pytest.mark.parametrize(
    ("change", "where", "said"),
    [
        (remove_mask, "ground_truth/hole", "the mask 002_mask.png is missing"),
        (add_mask, "ground_truth/hole/009_mask.png", "no image 009 in test/hole"),
        (remove_kind_of_masks, "ground_truth/hole", "there is no such folder"),
        (empty_kind_of_masks, "ground_truth/hole", "contains no images"),
        (add_empty_kind, "test/stain", "contains no images"),
        (remove_kinds, "test", "contains no folder"),
        (remove_test, "test", "there is no such folder; expected the layout of MVTec AD"),
    ],
)
def test_refuses_a_broken_layout(
    category: Path, change: Callable[[Path], None], where: str, said: str
) -> None:
    change(category)
    text = refusal(datasets.labelled_samples, category)
    assert text.startswith(f"{category / where}: ")
    assert said in text


@pytest.mark.parametrize("size", [(64, 64), (32, 16), (16, 64), (128, 192)])
def test_masks_are_resized_to_the_nearest_pixel(tmp_path: Path, size: tuple[int, int]) -> None:
    mask = np.where(noise(1, 64, 64) < 60, 255, 0).astype(np.uint8)
    sample = Sample(
        save(tmp_path / "a.png", noise(2, 64, 64)), "hole", save(tmp_path / "a_mask.png", mask)
    )
    rows, columns = ((np.arange(n) * 2 + 1) * 64 // (2 * n) for n in size)
    result = read_mask(sample, size)
    assert result.dtype == np.bool_
    np.testing.assert_array_equal(result, mask[np.ix_(rows, columns)] == 255)


def test_a_sample_without_a_mask_has_no_defective_pixel(tmp_path: Path) -> None:
    mask = read_mask(Sample(tmp_path / "a.png", "good", None), (3, 5))
    assert mask.shape == (3, 5)
    assert not mask.any()


def test_refuses_a_mask_of_another_size(tmp_path: Path) -> None:
    image, mask = (
        save(tmp_path / "a.png", noise(0, 8, 9)),
        save(tmp_path / "m.png", noise(0, 9, 8) // 128 * 255),
    )
    text = refusal(read_mask, Sample(image, "hole", mask), (4, 4))
    assert text.startswith(f"{mask}: has 9x8 pixels, expected 8x9 like its image")


def test_a_mask_fits_its_image_once_that_is_upright(tmp_path: Path) -> None:
    mask = save(tmp_path / "m.png", noise(0, 9, 8) // 128 * 255)
    lying = Image.fromarray(noise(1, 8, 9))
    exif = lying.getexif()
    exif[ExifTags.Base.Orientation] = 6  # turned by a quarter
    lying.save(tmp_path / "a.jpg", exif=exif)
    assert read_mask(Sample(tmp_path / "a.jpg", "hole", mask), (9, 8)).any()


def test_reads_images_in_order_and_resizes_like_the_runtime(tmp_path: Path) -> None:
    small, large = noise(0, 8, 12, 3), noise(1, 16, 30, 3)
    paths = [save(tmp_path / "b.png", small), save(tmp_path / "a.png", large)]
    kept, images = read_images(paths, (8, 12))
    assert kept == paths
    assert (images.shape, images.dtype) == ((2, 8, 12, 3), np.uint8)
    resized = Image.fromarray(large).resize((12, 8), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(images, [small, np.asarray(resized)])


@pytest.fixture
def with_bad(tmp_path: Path) -> list[Path]:
    """Four files of which the second and the last cannot be decoded."""
    paths = [save(tmp_path / f"{i}.png", noise(i, 32, 32)) for i in range(4)]
    paths[1].write_bytes(b"no image")
    paths[3].write_bytes(paths[3].read_bytes()[:300])
    return paths


def test_the_first_bad_file_stops(with_bad: list[Path]) -> None:
    text = refusal(read_images, with_bad, (8, 8))
    assert text.startswith(f"{with_bad[1]}: ")
    assert "--skip-bad" not in text, "other commands have no such flag"


def test_bad_files_are_left_out_when_asked(with_bad: list[Path]) -> None:
    errors: list[DataError] = []
    kept, images = read_images(with_bad, (8, 8), on_bad=errors.append)
    assert kept == [with_bad[0], with_bad[2]]
    np.testing.assert_array_equal(images, read_images(kept, (8, 8))[1])
    assert [str(e).partition(":")[0] for e in errors] == [str(with_bad[1]), str(with_bad[3])]


def test_nothing_but_bad_files_is_refused(with_bad: list[Path]) -> None:
    with pytest.raises(DataError, match="none of the images could be decoded"):
        read_images([with_bad[1]], (8, 8), on_bad=lambda _: None)


@pytest.mark.parametrize(
    ("count", "share", "held_out"),
    [(209, 0.2, 42), (320, 0.2, 64), (10, 0.25, 3), (2, 0.01, 1), (2, 0.9, 1), (3, 1.0, 2)],
)
def test_split_rounds_up_and_is_disjoint_and_complete(
    count: int, share: float, held_out: int
) -> None:
    train, held = split_held_out(count, share, seed=0)
    assert len(held) == held_out
    assert sorted(train + held) == list(range(count))
    assert (train, held) == (sorted(train), sorted(held))
    assert split_held_out(count, share, seed=0) == (train, held)


def test_split_depends_on_the_seed() -> None:
    splits = {tuple(split_held_out(50, 0.2, seed)[1]) for seed in range(100)}
    assert len(splits) == 100
    assert set().union(*splits) == set(range(50))


@pytest.mark.parametrize("count", [0, 1])
def test_refuses_to_split_too_few(count: int) -> None:
    assert f"got {count} good image, expected at least 2" in refusal(split_held_out, count, 0.2, 0)


def test_data_hash_sees_every_pixel_and_their_order() -> None:
    images = noise(0, 3, 4, 5, 3)
    brighter = images.copy()
    brighter[2, 3, 4, 2] ^= 1
    assert len({data_hash(x) for x in (images, brighter, images[::-1], images[:2])}) == 4
    assert data_hash(np.asfortranarray(images)) == data_hash(images.copy())


@pytest.mark.parametrize(("bits", "said"), [(10, "have 10 bits"), (12, "have 12 bits"), (16, "")])
def test_a_camera_that_uses_little_of_16_bits_is_noticed(
    bits: int, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    random = np.random.default_rng(0)
    paths = []
    for i in range(3):
        pixels = random.integers(0, 1 << bits, (20, 30), np.uint16)
        pixels[0, 0] = (1 << bits) - 1
        Image.fromarray(pixels).save(tmp_path / f"{i}.tif")
        paths.append(tmp_path / f"{i}.tif")
    note_unused_range(*read_images(paths, (20, 30)))
    written = capsys.readouterr().err
    assert said in written
    assert bool(written) == bool(said)


def test_a_dark_picture_of_8_bits_is_no_camera_of_few_bits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.fromarray(np.full((8, 8), 20, np.uint8)).save(tmp_path / "a.png")
    note_unused_range(*read_images([tmp_path / "a.png"], (8, 8)))
    assert not capsys.readouterr().err
