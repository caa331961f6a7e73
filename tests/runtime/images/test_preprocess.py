"""Images in every common form become the same upright 8-bit RGB pixels, or a `DataError`."""

from __future__ import annotations

import io
import struct
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from stpm.runtime.errors import DataError
from stpm.runtime.images.preprocess import load_image, resize

Pixels = NDArray[np.uint8]
ORIENTATION = 0x0112
IMAGE_WIDTH = 0x0100
TURNS: dict[int, Callable[[Pixels], Pixels]] = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.transpose(1, 0, 2),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: stored[::-1, ::-1].transpose(1, 0, 2),
    8: lambda stored: np.rot90(stored, 1),
}
"""What turns the stored pixels upright, by the EXIF orientation."""


def noise(*shape: int, dtype: type[np.generic] = np.uint8) -> NDArray[Any]:
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


def encoded(image: Image.Image | NDArray[Any], form: str, **options: Any) -> io.BytesIO:
    picture = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    buffer = io.BytesIO()
    picture.save(buffer, form, **options)
    buffer.seek(0)
    return buffer


def oriented(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return exif


def exif_with_a_text_for_the_width() -> bytes:
    """Describe the orientation 6 and a width of the wrong type."""
    entries = struct.pack("<HHI4s", IMAGE_WIDTH, 2, 1, b"a") + struct.pack(
        "<HHIHH", ORIENTATION, 3, 1, 6, 0
    )
    head = struct.pack("<2sHIH", b"II", 42, 8, 2)
    return b"Exif\0\0" + head + entries + struct.pack("<I", 0)


def assert_pixels(got: Pixels, expected: NDArray[Any]) -> None:
    assert got.dtype == np.uint8
    assert got.flags.c_contiguous
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize(
    ("form", "options"),
    [
        ("PNG", {}),
        ("BMP", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("TIFF", {"compression": "tiff_adobe_deflate"}),
    ],
)
def test_rgb_is_kept(form: str, options: dict[str, str]) -> None:
    pixels = noise(6, 5, 3)
    assert_pixels(load_image(encoded(pixels, form, **options)), pixels)


@pytest.mark.parametrize("form", ["PNG", "BMP", "TIFF"])
def test_grey_becomes_three_equal_channels(form: str) -> None:
    grey = noise(6, 5)
    assert_pixels(load_image(encoded(grey, form)), np.stack([grey] * 3, axis=-1))


def test_grey_jpeg() -> None:
    loaded = load_image(encoded(np.full((8, 8), 77, np.uint8), "JPEG"))
    assert_pixels(loaded, np.full((8, 8, 3), 77))


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_alpha_is_dropped_and_hidden_colours_stay(form: str) -> None:
    pixels = noise(6, 5, 4)
    pixels[0, :, 3] = 0
    assert_pixels(load_image(encoded(pixels, form)), pixels[..., :3])


def test_grey_with_alpha() -> None:
    pixels = noise(6, 5, 2)
    loaded = load_image(encoded(Image.fromarray(pixels, "LA"), "PNG"))
    assert_pixels(loaded, np.stack([pixels[..., 0]] * 3, axis=-1))


@pytest.mark.parametrize("form", ["PNG", "BMP", "TIFF"])
def test_one_bit_is_black_and_white(form: str) -> None:
    bits = noise(6, 5) > 127
    expected = np.stack([np.where(bits, 255, 0)] * 3, axis=-1)
    assert_pixels(load_image(encoded(bits, form)), expected)


@pytest.mark.parametrize(
    ("form", "options"),
    [
        ("PNG", {}),
        ("PNG", {"transparency": 1}),
        ("PNG", {"transparency": bytes([0, 128])}),
        ("BMP", {}),
        ("TIFF", {}),
    ],
)
def test_palette_gives_its_colours(form: str, options: dict[str, Any]) -> None:
    colours = np.array([(10, 200, 30), (250, 0, 90), (1, 2, 3)], np.uint8)
    indices = noise(6, 5) % 3
    picture = Image.fromarray(indices, "L").convert("P")
    picture.putdata(indices.ravel().tolist())
    picture.putpalette(colours.ravel().tolist())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = load_image(encoded(picture, form, **options))
    assert_pixels(loaded, colours[indices])


@pytest.mark.parametrize(("form", "dtype"), [("PNG", "<u2"), ("TIFF", "<u2"), ("TIFF", ">u2")])
def test_16_bits_are_rounded_to_8(form: str, dtype: str) -> None:
    values = np.arange(1 << 16).reshape(256, 256)
    loaded = load_image(encoded(values.astype(dtype), form))
    assert_pixels(loaded, np.stack([np.rint(values / 257)] * 3, axis=-1))
    exact = np.arange(256)
    np.testing.assert_array_equal(loaded.reshape(-1, 3)[257 * exact, 0], exact)


@pytest.mark.parametrize(
    ("value", "expected"), [(0, 0), (128, 0), (129, 1), (65406, 254), (65407, 255), (65535, 255)]
)
@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 1), (2, 3, 3), (2, 3, 4)])
def test_16_bit_arrays(shape: tuple[int, ...], value: int, expected: int) -> None:
    assert_pixels(load_image(np.full(shape, value, np.uint16)), np.full((2, 3, 3), expected))


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("form", ["PNG", "JPEG", "TIFF"])
def test_exif_orientation(form: str, orientation: int) -> None:
    stored = load_image(encoded(noise(16, 24, 3), form))
    loaded = load_image(encoded(noise(16, 24, 3), form, exif=oriented(orientation)))
    assert_pixels(loaded, TURNS[orientation](stored))


@pytest.mark.parametrize("orientation", TURNS)
def test_exif_orientation_of_16_bit_grey(orientation: int) -> None:
    grey = noise(6, 5, dtype=np.uint16)
    expected = TURNS[orientation](load_image(grey))
    assert_pixels(load_image(encoded(grey, "PNG", exif=oriented(orientation))), expected)


def test_cmyk_jpeg() -> None:
    inks = {"red": (0, 255, 255, 0), "black": (0, 0, 0, 255), "white": (0, 0, 0, 0)}
    colours = {"red": (255, 0, 0), "black": (0, 0, 0), "white": (255, 255, 255)}
    for name, ink in inks.items():
        loaded = load_image(encoded(Image.new("CMYK", (16, 16), ink), "JPEG", quality=95))
        np.testing.assert_allclose(loaded[8, 8], colours[name], atol=4)


def test_jpeg_is_close_to_its_source() -> None:
    columns = np.linspace(20, 220, 32).astype(np.uint8)
    pixels = np.broadcast_to(columns[None, :, None], (16, 32, 3)).copy()
    loaded = load_image(encoded(pixels, "JPEG", quality=95))
    np.testing.assert_allclose(loaded.astype(int), pixels.astype(int), atol=4)


@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 1), (6, 5, 3), (6, 5, 4)])
def test_arrays(shape: tuple[int, ...]) -> None:
    pixels = noise(*shape)
    expected = np.broadcast_to(pixels.reshape(6, 5, -1)[..., :3], (6, 5, 3))
    assert_pixels(load_image(pixels), expected)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 1), (6, 5, 3), (6, 5, 4)])
def test_one_plane(shape: tuple[int, ...], dtype: type[np.generic]) -> None:
    plane = noise(6, 5, dtype=dtype)
    pixels = np.repeat(plane[..., None], shape[2], axis=2) if len(shape) == 3 else plane
    if len(shape) == 3 and shape[2] == 4:
        pixels[..., 3] = 9
    loaded = load_image(pixels, channels=1)
    assert loaded.flags.c_contiguous
    assert_pixels(np.repeat(loaded, 3, axis=2), load_image(plane))
    if len(shape) == 3 and shape[2] > 1:
        pixels[3, 2, 1] ^= 1 << 8 * plane.itemsize - 1
        with pytest.raises(DataError, match="image: got an image whose red, green and blue differ"):
            load_image(pixels, channels=1)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("shape", [(6, 10), (6, 10, 3), (6, 10, 4)])
def test_views(shape: tuple[int, ...], dtype: type[np.generic]) -> None:
    whole = noise(*shape, dtype=dtype)
    for view in (whole[::-1], whole[1::2, ::-3], whole.swapaxes(0, 1), whole[2:3, 4:5]):
        assert_pixels(load_image(view), load_image(view.copy()))


def test_bgr_view_is_read_in_its_own_order() -> None:
    bgr = noise(6, 5, 3)
    assert_pixels(load_image(bgr[..., ::-1]), bgr[..., ::-1])


def test_sources_of_one_file_agree(tmp_path: Path) -> None:
    path, pixels = tmp_path / "part.png", noise(6, 5, 3)
    Image.fromarray(pixels).save(path)
    with path.open("rb") as file:
        assert_pixels(load_image(file), pixels)
        assert not file.closed
    assert_pixels(load_image(path), pixels)
    assert_pixels(load_image(str(path)), pixels)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 5, 3), np.float32),
        np.zeros((4, 5), np.bool_),
        np.zeros((4, 5), np.int64),
        np.zeros((4, 5), ">u2"),
        np.zeros((), np.uint8),
        np.zeros(5, np.uint8),
        np.zeros((4, 5, 2), np.uint8),
        np.zeros((4, 5, 5), np.uint8),
        np.zeros((1, 4, 5, 3), np.uint8),
        np.zeros((0, 5), np.uint8),
        np.zeros((4, 0, 3), np.uint16),
    ],
    ids=lambda array: f"{array.dtype}{array.shape}",
)
def test_other_arrays_are_refused(array: NDArray[Any]) -> None:
    with pytest.raises(DataError, match="expected uint8 or uint16") as caught:
        load_image(array)
    assert f"got an array of dtype {array.dtype} and shape {array.shape}" in str(caught.value)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent\.png: there is no such file"):
        load_image(tmp_path / "absent.png")


@pytest.mark.parametrize("content", [b"", b"no image", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"])
def test_file_that_is_no_image(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "notes.png"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"notes\.png: .*decoded"):
        load_image(path)


def test_folder_is_no_image(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be decoded"):
        load_image(tmp_path)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "BMP", "TIFF"])
@pytest.mark.parametrize("share", [0.6, 0.95])
def test_truncated_file(tmp_path: Path, form: str, share: float) -> None:
    # A TIFF of Pillow keeps its directory in front, so that only the pixels are cut.
    whole = encoded(noise(64, 48, 3), form).getvalue()
    path = tmp_path / "cut"
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(DataError, match="cut: the image cannot be decoded"):
        load_image(path)


def test_floating_point_tiff() -> None:
    with pytest.raises(DataError, match="SampleFormat 3, expected 1, unsigned integers"):
        load_image(encoded(np.ones((4, 5), np.float32), "TIFF"))


def test_damaged_exif() -> None:
    buffer = encoded(noise(8, 8, 3), "JPEG", exif=exif_with_a_text_for_the_width())
    with pytest.raises(DataError, match="cannot be decoded"):
        load_image(buffer)


FILES = {
    "JPEG": encoded(noise(16, 12, 3), "JPEG", exif=oriented(6)).getvalue(),
    "PNG": encoded(noise(16, 12, 3), "PNG", exif=oriented(6)).getvalue(),
    "BMP": encoded(noise(16, 12), "BMP").getvalue(),
    "TIFF": encoded(noise(16, 12, dtype=np.uint16), "TIFF").getvalue(),
}


@settings(deadline=None)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("form", FILES)
@given(st.data())
def test_damaged_files_decode_or_raise_data_error(form: str, data: st.DataObject) -> None:
    content = bytearray(FILES[form])
    places = st.integers(0, len(content) - 1) | st.integers(0, 120)
    for place, value in data.draw(st.lists(st.tuples(places, st.integers(0, 255)), min_size=1)):
        content[min(place, len(content) - 1)] = value
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Image, "MAX_IMAGE_PIXELS", 1_000_000)
        try:
            loaded = load_image(io.BytesIO(content))
        except DataError:
            return
    assert loaded.dtype == np.uint8
    assert loaded.shape[2:] == (3,)


@pytest.mark.parametrize("size", [(16, 16), (100, 80), (40, 20), (7, 90), (1, 1), (64, 47)])
def test_resize_is_pillows_bilinear(size: tuple[int, int]) -> None:
    pixels = noise(64, 48, 3)
    # One direction a call: from version 13 on Pillow takes the rows of some images first.
    columns = Image.fromarray(pixels).resize((size[1], len(pixels)), Image.Resampling.BILINEAR)
    expected = columns.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    resized = resize(pixels, size)
    assert resized.dtype == np.uint8
    assert resized.shape == (*size, 3)
    np.testing.assert_array_equal(resized, np.asarray(expected))


def test_resize_averages_when_it_shrinks() -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::4] = 200
    inner = resize(stripes, (8, 8))[:, 1:-1]
    np.testing.assert_allclose(inner.astype(int), 50, atol=1)


def test_resize_to_the_same_size_changes_nothing() -> None:
    pixels = noise(6, 5, 3)
    before = pixels.copy()
    assert_pixels(resize(pixels, (6, 5)), before)


def test_pillow_images_are_taken_as_they_are() -> None:
    image = Image.fromarray(noise(6, 5, 3))
    np.testing.assert_array_equal(load_image(image), np.asarray(image))
    assert image.size == (5, 6), "the caller's image is unchanged"


def test_what_is_no_image_at_all() -> None:
    with pytest.raises(DataError, match="got bytes as an image, expected a path"):
        load_image(b"png")  # type: ignore[arg-type]


def test_thirty_two_bit_pixels() -> None:
    pixels = np.array([[0, 70000]], np.int32)
    with pytest.raises(DataError, match="expected 8 or 16 bits"):
        load_image(Image.fromarray(pixels))
