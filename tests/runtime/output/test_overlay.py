"""Pictures: the fixed colour scale, what the overlay leaves alone, and the files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from skimage.color import rgb2lab

from stpm.runtime.errors import DataError
from stpm.runtime.output.map_score import UNALIGNED_SCORE
from stpm.runtime.output.overlay import heatmap, overlay, save_pictures, side_by_side
from stpm.runtime.output.result import Result

PIXEL_THRESHOLD = 0.2
SIZE = (160, 200)


def blob_map(height: int = 32, width: int = 40, peak: float = 2.0) -> NDArray[np.float32]:
    y, x = np.mgrid[:height, :width]
    distance = ((y - height / 4) / 3) ** 2 + ((x - width / 4) / 3) ** 2
    return (0.01 + peak * np.exp(-distance / 2)).astype(np.float32)


def inspected(anomaly_map: NDArray[np.float32], size: tuple[int, int] = SIZE) -> Result:
    return Result(float(anomaly_map.max()), anomaly_map, 1.0, PIXEL_THRESHOLD, size)


def picture(size: tuple[int, int] = SIZE) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)


def test_lightness_rises_with_the_map_value() -> None:
    values = np.geomspace(1e-6, 1e6, 2000, dtype=np.float32).reshape(1, -1)
    colours = heatmap(values, 1.0)
    lightness = rgb2lab(colours)[0, :, 0]
    assert (np.diff(lightness) >= 0).all()
    assert lightness[0] < 2
    assert lightness[-1] > 95
    assert len(np.unique(colours[0], axis=0)) > 200


@pytest.mark.parametrize("threshold", [1e-9, 0.3, 1e5])
def test_threshold_has_the_same_colour_in_every_map(threshold: float) -> None:
    scale = np.array([[0.1, 1.0, 10.0]], dtype=np.float32)
    exact = np.float32(threshold)
    colours = heatmap(scale * exact, float(exact))
    np.testing.assert_array_equal(colours, heatmap(scale, 1.0))


def test_good_parts_look_dark_and_defects_bright() -> None:
    lightness = rgb2lab(heatmap(np.array([[0.25, 1.0, 4.0]], dtype=np.float32), 1.0))[0, :, 0]
    assert lightness[0] < 25
    assert 35 < lightness[1] < 55
    assert lightness[2] > 65


@pytest.mark.parametrize("threshold", [0.0, -1.0, 1.0])
def test_zero_maps_are_black(threshold: float) -> None:
    colours = heatmap(np.zeros((3, 4), dtype=np.float32), threshold)
    assert colours.shape == (3, 4, 3)
    assert colours.dtype == np.uint8
    assert (colours == colours[0, 0]).all()
    assert colours.max() < 8


def test_extreme_values_keep_to_the_ends_of_the_scale() -> None:
    largest = np.finfo(np.float32).max
    smallest = np.finfo(np.float32).smallest_subnormal
    values = np.array([[-1.0, 0.0, smallest, largest]], dtype=np.float32)
    np.testing.assert_array_equal(heatmap(values, 1.0)[0, :3], heatmap(values, 1.0)[0, [1, 1, 1]])
    assert heatmap(values, 1.0)[0, 3].sum() > 600
    assert heatmap(values, 0.0)[0, 2].sum() > 600


def test_overlay_leaves_a_good_image_alone() -> None:
    image = picture()
    result = inspected(np.full((32, 40), PIXEL_THRESHOLD / 2, dtype=np.float32))
    np.testing.assert_array_equal(overlay(image, result), image)


def test_a_part_that_could_not_be_aligned_is_struck_out() -> None:
    image = picture()
    flat = np.zeros((32, 40), np.float32)
    shown = overlay(image, Result(UNALIGNED_SCORE, flat, 1.0, PIXEL_THRESHOLD, SIZE))
    red = (shown == (190, 20, 30)).all(axis=2)
    height, width = SIZE
    assert red[0].all()
    assert red[:, -1].all()
    assert red[height // 2, width // 2]
    assert red.mean() < 0.3
    np.testing.assert_array_equal(shown[~red], image[~red])


def test_overlay_changes_only_the_hot_area_and_its_box() -> None:
    image, result = picture(), inspected(blob_map())
    before = image.copy()
    painted = overlay(image, result)
    changed = (painted != image).any(axis=-1)
    assert painted.shape == image.shape
    assert painted.dtype == np.uint8
    np.testing.assert_array_equal(image, before)
    (region,) = result.regions
    top, left, bottom, right = region.box
    outside = changed.copy()
    outside[max(top - 8, 0) : bottom + 8, max(left - 8, 0) : right + 8] = False
    assert not outside.any()
    scale = SIZE[0] // 32
    hot = np.repeat(np.repeat(result.pred_mask, scale, axis=0), scale, axis=1)
    assert changed[hot].mean() > 0.95
    assert changed[top:bottom, left:right][~hot[top:bottom, left:right]].mean() < 0.2


def test_overlay_blends_towards_the_heat_colour() -> None:
    result = inspected(blob_map())
    painted = overlay(np.zeros((*SIZE, 3), dtype=np.uint8), result)
    row, column = np.unravel_index(result.anomaly_map.argmax(), result.anomaly_map.shape)
    scale = SIZE[0] // 32
    colour = heatmap(result.anomaly_map, PIXEL_THRESHOLD)[row, column]
    share = painted[row * scale + 2, column * scale + 2] / colour
    np.testing.assert_allclose(share, share[0], atol=0.05)
    assert 0.4 < share[0] < 0.7


def test_only_regions_above_the_image_threshold_have_a_box() -> None:
    weak = blob_map(peak=0.5)
    image = np.zeros((*SIZE, 3), dtype=np.uint8)
    top, left, _, right = inspected(weak).regions[0].box
    boxed = overlay(image, Result(0.5, weak, 0.4, PIXEL_THRESHOLD, SIZE))
    plain = overlay(image, Result(0.5, weak, 0.9, PIXEL_THRESHOLD, SIZE))
    assert plain.any()
    assert not plain[top - 4 : top - 1].any()
    assert boxed[top - 4 : top - 1, left:right].any(axis=-1).any(axis=0).all()


def test_tiny_defect_in_a_large_image_is_outlined() -> None:
    anomaly_map = np.zeros((64, 64), dtype=np.float32)
    anomaly_map[10, 20] = 5
    image = np.zeros((1024, 1024, 3), dtype=np.uint8)
    assert overlay(image, inspected(anomaly_map, (1024, 1024))).any(axis=-1).sum() > 300


@pytest.mark.parametrize("size", [(16, 20), (1, 1), (500, 37)])
def test_overlay_in_any_image_size(size: tuple[int, int]) -> None:
    assert overlay(picture(size), inspected(blob_map(), size)).shape == (*size, 3)


@pytest.mark.parametrize("shape", [(160, 201, 3), (160, 200), (160, 200, 4)])
def test_image_of_another_size_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match="expected \\(160, 200, 3\\)"):
        overlay(np.zeros(shape, dtype=np.uint8), inspected(blob_map()))


def test_panels_stand_beside_each_other() -> None:
    image = np.full((*SIZE, 3), (10, 200, 30), dtype=np.uint8)
    result = inspected(blob_map())
    three = side_by_side(image, result)
    four = side_by_side(image, result, np.ones(SIZE, dtype=np.bool_))
    assert three.mode == "RGB"
    assert three.width > 3 * 300
    assert three.height > 300
    assert four.width > three.width + 300
    assert four.height == three.height
    pixels = np.asarray(four)
    middle = pixels[pixels.shape[0] // 2 + 60]
    step = four.width // 4
    np.testing.assert_array_equal(middle[step // 2], (10, 200, 30))
    np.testing.assert_array_equal(middle[-step // 2], (255, 255, 255))


@pytest.mark.parametrize(("threshold", "red"), [(1.0, True), (9.0, False)])
def test_header_colour_tells_the_verdict(threshold: float, red: bool) -> None:
    result = Result(2.0, blob_map(), threshold, PIXEL_THRESHOLD, SIZE)
    header = np.asarray(side_by_side(np.zeros((*SIZE, 3), dtype=np.uint8), result))[:44]
    ink = header[header.min(axis=-1) < 128].astype(int)
    assert len(ink) > 300
    assert (ink[:, 0] > ink[:, 1]).all() == red
    assert (ink[:, 1] > ink[:, 0]).all() != red


def test_the_header_of_a_part_to_be_looked_at_is_neither_green_nor_red() -> None:
    result = Result(2.0, blob_map(), 9.0, PIXEL_THRESHOLD, SIZE, warn_threshold=1.0)
    header = np.asarray(side_by_side(np.zeros((*SIZE, 3), dtype=np.uint8), result))[:44]
    ink = header[header.max(axis=-1) < 170].astype(int)
    assert len(ink) > 300
    assert (abs(ink[:, 0] - ink[:, 1]) < 80).all()
    assert (ink[:, 2] < ink[:, 1]).all()


def test_a_title_makes_the_header_longer() -> None:
    image, result = picture(), inspected(blob_map())
    ends = []
    for title in ("", "old"):
        header = np.asarray(side_by_side(image, result, title=title))[:44]
        ends.append(np.flatnonzero((header != header[0, 0]).any(axis=(0, 2)))[-1])
    assert ends[1] > ends[0] + 20


@pytest.mark.parametrize("size", [(600, 20), (20, 600), (1, 1)])
def test_header_and_captions_fit_beside_any_image(size: tuple[int, int]) -> None:
    result = inspected(blob_map(), size)
    sheet = np.asarray(side_by_side(picture(size), result, np.zeros(size, dtype=np.bool_)))
    background = sheet[0, 0]
    for edge in (sheet[:, :8], sheet[:, -8:], sheet[:8], sheet[-8:]):
        assert (edge == background).all()


def test_saved_pictures(tmp_path: Path) -> None:
    image, result = picture(), inspected(blob_map())
    paths = save_pictures(tmp_path / "part.1", image, result)
    names = ["part.1_heatmap.png", "part.1_mask.png", "part.1_overlay.png"]
    assert [p.name for p in paths] == names
    assert sorted(p.name for p in tmp_path.iterdir()) == names
    shown, mask, painted = (np.asarray(Image.open(p)) for p in paths)
    np.testing.assert_array_equal(shown, heatmap(result.anomaly_map, PIXEL_THRESHOLD))
    np.testing.assert_array_equal(mask, np.where(result.pred_mask, 255, 0))
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(painted, overlay(image, result))


def test_failed_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stem, result = tmp_path / "part", inspected(blob_map())
    save_pictures(stem, picture(), result)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}

    def half_written(_: Image.Image, path: Path, **__: object) -> None:
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(Image.Image, "save", half_written)
    with pytest.raises(OSError, match="disk full"):
        save_pictures(stem, picture(), inspected(blob_map(peak=1.0)))
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before
