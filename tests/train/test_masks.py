"""Masks as people's tools write them: every defect is read, or the file is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from stpm.runtime import DataError
from stpm.train.datasets import Sample, labelled_samples, read_mask
from stpm.train.evaluate import evaluate

SIZE = (24, 32)
DEFECT = np.zeros(SIZE, np.bool_)
DEFECT[4:12, 6:20] = True


@pytest.fixture
def sample(tmp_path: Path) -> Sample:
    Image.new("RGB", (SIZE[1], SIZE[0])).save(tmp_path / "part.png")
    return Sample(tmp_path / "part.png", "cut", tmp_path / "part_mask.png")


def save(sample: Sample, values: NDArray[np.generic], palette: list[int] | None = None) -> None:
    image = Image.fromarray(values)
    if palette is not None:
        image.putpalette(palette)
    assert sample.mask is not None
    image.save(sample.mask)


@pytest.mark.parametrize("value", [1, 2, 100, 127, 128, 255])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_any_value_but_zero_is_a_defect(sample: Sample, value: int, dtype: type) -> None:
    save(sample, DEFECT.astype(dtype) * dtype(value))
    np.testing.assert_array_equal(read_mask(sample, SIZE), DEFECT)


@pytest.mark.parametrize("colour", [(255, 0, 0), (0, 0, 1), (90, 120, 10)])
def test_coloured_masks(sample: Sample, colour: tuple[int, int, int]) -> None:
    save(sample, DEFECT[..., None].astype(np.uint8) * np.array(colour, np.uint8))
    np.testing.assert_array_equal(read_mask(sample, SIZE), DEFECT)


def test_a_palette_counts_by_index(sample: Sample) -> None:
    save(sample, DEFECT.astype(np.uint8), palette=[0, 0, 0, 0, 0, 0])
    np.testing.assert_array_equal(read_mask(sample, SIZE), DEFECT)


def test_bilevel_and_whole_masks(sample: Sample) -> None:
    save(sample, DEFECT)
    np.testing.assert_array_equal(read_mask(sample, SIZE), DEFECT)
    save(sample, np.full(SIZE, 1, np.uint8))
    assert read_mask(sample, SIZE).all()
    save(sample, np.zeros(SIZE, np.uint8))
    assert not read_mask(sample, SIZE).any()


def test_edges_blurred_by_jpeg_are_cut_in_the_middle(sample: Sample, tmp_path: Path) -> None:
    large = np.kron(DEFECT, np.ones((8, 8), np.bool_))
    Image.new("RGB", (large.shape[1], large.shape[0])).save(sample.path)
    mask = tmp_path / "part_mask.jpg"
    Image.fromarray(large.astype(np.uint8) * 255).save(mask, quality=90)
    found = read_mask(Sample(sample.path, "cut", mask), large.shape)
    assert np.mean(found != large) < 0.005


@pytest.mark.parametrize(
    "values",
    [np.where(DEFECT, 255, 7), np.where(DEFECT, 200, 100), np.tile(np.arange(32), (24, 1))],
    ids=["dark but not zero", "two greys", "a ramp"],
)
def test_what_says_nothing_is_named(sample: Sample, values: NDArray[np.int64]) -> None:
    save(sample, values.astype(np.uint8))
    if values.min() == 7:  # nearly black: a soft zero
        np.testing.assert_array_equal(read_mask(sample, SIZE), DEFECT)
        return
    with pytest.raises(DataError, match=r"part_mask\.png: is a mask with the values"):
        read_mask(sample, SIZE)


def category(tmp_path: Path, *, black: tuple[str, ...] = ()) -> Path:
    for kind, count in (("good", 3), ("cut", 2), ("hole", 2)):
        for i in range(count):
            path = tmp_path / f"test/{kind}/{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((*SIZE, 3), 20 * i, np.uint8)).save(path)
            if kind != "good":
                mask = tmp_path / f"ground_truth/{kind}/{i}_mask.png"
                mask.parent.mkdir(parents=True, exist_ok=True)
                values = DEFECT & (kind not in black)
                Image.fromarray(values.astype(np.uint8)).save(mask)
    return tmp_path


def score(images: object) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Maps that find every defect, of images that hold none to see."""
    count = len(images)  # type: ignore[arg-type]
    maps = np.random.default_rng(0).random((count, *SIZE), np.float32)
    return maps + 9 * DEFECT, np.arange(count, dtype=np.float32)


def test_one_kind_with_black_masks_costs_its_own_pixel_metrics(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = evaluate(score, labelled_samples(category(tmp_path, black=("hole",))))
    assert found.overall.pixel_auroc is not None
    assert found.by_kind["cut"].aupro is not None
    assert found.by_kind["hole"].pixel_auroc is None
    assert 0 <= found.by_kind["hole"].image_auroc <= 1
    assert "0_mask.png and 1 more: no pixel of a defective image is marked" in (
        capsys.readouterr().err
    )
    # The metrics are those of the other images alone.
    rows = np.array([s.kind != "hole" for s in found.samples])
    assert found.has_pixels.tolist() == rows.tolist()


def test_two_images_of_one_name_do_not_share_a_mask(tmp_path: Path) -> None:
    root = category(tmp_path)
    Image.new("RGB", (32, 24)).save(root / "test/cut/0.jpg")
    with pytest.raises(DataError, match="contains 2 images named 0, which would share the mask"):
        labelled_samples(root)


@pytest.mark.parametrize(
    ("kind", "said"), [("good", "3 good images alone"), ("cut", "2 defective images alone")]
)
def test_a_test_set_of_one_class_names_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str, said: str
) -> None:
    samples = [s for s in labelled_samples(category(tmp_path)) if s.kind == kind]
    evaluate(score, samples)
    assert f"{tmp_path / 'test'}: got {said}" in capsys.readouterr().err
