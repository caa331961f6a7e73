"""Image files against a second reader, or against what they were made of; and damaged ones."""

from __future__ import annotations

import io
import struct
import threading
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin
from torchvision.io import ImageReadMode, decode_image

from stpm.runtime import DataError
from stpm.runtime.images.decoding import MAX_PIXELS
from stpm.runtime.images.preprocess import load_image

CASES = Path(__file__).parents[2] / "data"
SIZE = (9, 13)
FUZZED = 500
PLANES = {"planarconfig": "separate", "photometric": "rgb"}
LAYOUTS: dict[str, tuple[tuple[int, ...], dict[str, object]]] = {
    "grey": (SIZE, {"photometric": "minisblack"}),
    "white is zero": (SIZE, {"photometric": "miniswhite"}),
    "rgb": ((*SIZE, 3), {"photometric": "rgb"}),
    "rgba": ((*SIZE, 4), {"photometric": "rgb", "extrasamples": ["unassalpha"]}),
    "planes": ((3, *SIZE), PLANES),
}
DTYPES = (np.uint8, np.uint16, np.int8, np.int16, np.uint32, np.int32, np.float32)


def noise(dtype: type, shape: tuple[int, ...]) -> NDArray[np.generic]:
    random = np.random.default_rng(7)
    if dtype is np.float32:
        return random.random(shape, np.float32)
    return random.integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


def eight_bit_rgb(pixels: NDArray[np.generic]) -> NDArray[np.uint8]:
    """The pixels as `load_image` is to return them, computed in floating point."""
    levels = pixels.astype(np.float64)
    if pixels.dtype == np.uint16:
        levels = np.rint(levels / 257)
    levels = levels[..., None].repeat(3, 2) if levels.ndim == 2 else levels[..., :3]
    return levels.astype(np.uint8)


def right_or_refused(source: object, expected: NDArray[np.uint8]) -> bool:
    """Read an image; whether it was read, and then to the right pixels."""
    try:
        found = load_image(source)  # type: ignore[arg-type]
    except DataError:
        return False
    np.testing.assert_array_equal(found, expected)
    return True


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_tiffs_are_read_right_or_refused(layout: str, dtype: type, tmp_path: Path) -> None:
    shape, settings = LAYOUTS[layout]
    pixels, path = noise(dtype, shape), tmp_path / "part.tif"
    read = []
    for compression in (None, "zlib", "lzw", "zstd", "packbits"):
        for order in "<" if (layout, dtype) == ("white is zero", np.uint16) else "<>":
            for predictor in {None, True if compression in ("zlib", "lzw", "zstd") else None}:
                options = {
                    "compression": compression,
                    "byteorder": order,
                    "predictor": predictor,
                    "rowsperstrip": 4,  # the last strip is shorter
                }
                try:
                    tifffile.imwrite(path, pixels, **settings, **options)
                except (NotImplementedError, ValueError):
                    assert predictor  # of pixels that have none
                    continue
                expected = tifffile.imread(path)
                if layout == "white is zero" and dtype in (np.uint8, np.uint16):
                    expected = np.iinfo(dtype).max - expected
                if layout == "planes":
                    expected = expected.transpose(1, 2, 0)
                read.append(right_or_refused(path, eight_bit_rgb(expected)))
                read.append(
                    right_or_refused(io.BytesIO(path.read_bytes()), eight_bit_rgb(expected))
                )
    assert len(read) >= 10
    wanted = dtype in (np.uint8, np.uint16) and (layout, dtype) != ("planes", np.uint16)
    # Pillow has no mode for 16 bits in the other byte order whose white is zero.
    assert all(read) if wanted else not any(read)


@pytest.mark.parametrize("compression", ["raw", "packbits"])
def test_a_predictor_that_readers_disagree_on_is_refused(compression: str, tmp_path: Path) -> None:
    path = tmp_path / "part.tif"
    image = Image.fromarray(noise(np.uint8, (9, 13, 3)))
    image.save(path, compression=compression, tiffinfo={317: 2})
    assert not np.array_equal(tifffile.imread(path), np.asarray(image))
    with pytest.raises(DataError, match="Predictor 2 without LZW or Deflate"):
        load_image(path)


def png(pixels: NDArray[np.uint16] | NDArray[np.uint8], *chunks: tuple[bytes, bytes]) -> bytes:
    """Encode grey, grey with alpha, RGB or RGBA; rows take the filters None, Sub and Up in turn."""
    height, width, channels = pixels.shape
    depth = pixels.dtype.itemsize
    rows = pixels.astype(f">u{depth}").view(np.uint8).reshape(height, -1).astype(np.int64)
    left = np.pad(rows, ((0, 0), (channels * depth, 0)))[:, : rows.shape[1]]
    above = np.pad(rows, ((1, 0), (0, 0)))[:height]
    filtered = [rows - (0, left, above)[y % 3] for y in range(3)]
    lines = b"".join(
        bytes([y % 3]) + (filtered[y % 3][y] % 256).astype(np.uint8).tobytes()
        for y in range(height)
    )

    def chunk(kind: bytes, content: bytes) -> bytes:
        body = kind + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    colour = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    header = struct.pack(">IIBBBBB", width, height, 8 * depth, colour, 0, 0, 0)
    middle = b"".join(chunk(*each) for each in chunks)
    data = chunk(b"IDAT", zlib.compress(lines))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + middle + data + chunk(b"IEND", b"")


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_pngs_equal_the_path_of_arrays(channels: int, dtype: type, tmp_path: Path) -> None:
    pixels = noise(dtype, (*SIZE, channels))
    grey = pixels[..., 0] if channels < 3 else pixels
    expected = load_image(grey)  # type: ignore[arg-type]
    np.testing.assert_array_equal(expected, eight_bit_rgb(grey))
    (tmp_path / "part.png").write_bytes(png(pixels))  # type: ignore[arg-type]
    assert right_or_refused(tmp_path / "part.png", expected)
    assert right_or_refused(io.BytesIO(png(pixels)), expected)  # type: ignore[arg-type]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("dtype", "channels"), [(np.uint16, 1), (np.uint16, 3), (np.uint8, 3)])
def test_orientation_turns_every_depth(orientation: int, dtype: type, channels: int) -> None:
    pixels = noise(dtype, (*SIZE, channels))
    exif = Image.Exif()
    exif[0x0112] = orientation
    found = load_image(io.BytesIO(png(pixels, (b"eXIf", exif.tobytes()[6:]))))  # type: ignore[arg-type]
    upright = pixels if channels == 3 else pixels[..., 0]
    turns = {1: 0, 2: 0, 3: 2, 4: 2, 5: 1, 6: 3, 7: 3, 8: 1}[orientation]
    if orientation in (2, 4, 5, 7):
        upright = upright[:, ::-1]
    np.testing.assert_array_equal(found, eight_bit_rgb(np.rot90(upright, turns)))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_turned_tiff_is_turned_once(dtype: type, tmp_path: Path) -> None:
    pixels, path = noise(dtype, (*SIZE, 3)), tmp_path / "part.tif"
    tifffile.imwrite(path, pixels, photometric="rgb", extratags=[(274, "H", 1, 6, True)])
    np.testing.assert_array_equal(load_image(path), eight_bit_rgb(np.rot90(pixels, 3)))


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_torchvisions_decoders_read_the_same(form: str, mode: str) -> None:
    """A second reader with libraries of its own."""
    if (form, mode) in (("JPEG", "RGBA"), ("WEBP", "L")):
        pytest.skip(f"{form} has no {mode}")
    smooth = np.linspace(0, 255, 40 * 56 * 4).reshape(40, 56, 4).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(smooth).convert(mode).save(file, form, lossless=True, quality=90)
    content = torch.frombuffer(bytearray(file.getvalue()), dtype=torch.uint8)
    expected = decode_image(content, ImageReadMode.RGB).permute(1, 2, 0).numpy()
    difference = np.abs(load_image(file).astype(int) - expected)
    # Two JPEG libraries may round the inverse transform either way.
    assert difference.max() <= (2 if form == "JPEG" else 0)


@pytest.mark.parametrize("top_down", [False, True])
def test_a_bmp_written_by_hand(top_down: bool) -> None:
    pixels = noise(np.uint8, (5, 4, 3))  # 12 bytes a row: no filling
    height = -5 if top_down else 5
    rows = pixels if top_down else pixels[::-1]
    header = struct.pack("<IiiHHIIiiII", 40, 4, height, 1, 24, 0, 60, 2835, 2835, 0, 0)
    content = b"BM" + struct.pack("<IHHI", 54 + 60, 0, 0, 54) + header + rows[..., ::-1].tobytes()
    np.testing.assert_array_equal(load_image(io.BytesIO(content)), pixels)


def pages(*images: NDArray[np.uint8], reduced: int | None = None) -> io.BytesIO:
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as tiff:
        for i, image in enumerate(images):
            tiff.write(image, subfiletype=int(i == reduced), photometric="rgb", metadata=None)
    file.seek(0)
    return file


def test_a_thumbnail_is_no_page_and_several_pages_are_refused(tmp_path: Path) -> None:
    whole, small = noise(np.uint8, (*SIZE, 3)), noise(np.uint8, (3, 4, 3))
    assert right_or_refused(pages(small, whole, reduced=0), whole)  # type: ignore[arg-type]
    assert right_or_refused(pages(whole, small, reduced=1), whole)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="got 2 pages, expected one"):
        load_image(pages(whole, whole))  # type: ignore[arg-type]
    frames = [Image.fromarray(whole), Image.fromarray(whole[::-1])]  # type: ignore[arg-type]
    for name in ("part.webp", "part.png"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], lossless=True)
        with pytest.raises(DataError, match="got 2 pages, expected one"):
            load_image(tmp_path / name)


def test_what_once_failed() -> None:
    """Small files of real cameras' kinds; `ref_` are the right pixels."""
    grey = load_image(CASES / "ref_grey.png")
    np.testing.assert_array_equal(load_image(CASES / "white_is_zero16.tif"), grey)
    assert load_image(CASES / "icc3mb.png").shape == grey.shape
    with pytest.raises(DataError, match="PlanarConfiguration 2"):
        load_image(CASES / "planar16.tif")
    with pytest.raises(DataError, match="pixels of 32 bits, expected 8 or 16"):
        load_image(CASES / "uint32_0_255.tif")


def test_large_pictures_profiles_and_texts() -> None:
    """Silently: Pillow warns from 89 megapixels on, and refuses texts of a megabyte."""
    mosaic = io.BytesIO()
    Image.new("1", (10_000, 9_500), 1).save(mosaic, "PNG")
    text = (b"iTXt", b"XML:com.adobe.xmp\x00\x01\x00\x00\x00" + zlib.compress(b"x" * 2_000_000))
    profile = (b"iCCP", b"big\x00\x00" + zlib.compress(bytes(3_000_000)))
    pixels = noise(np.uint8, (*SIZE, 3))
    before = Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_image(mosaic).min() == 255
        for chunk in (text, profile):
            assert right_or_refused(io.BytesIO(png(pixels, chunk)), pixels)  # type: ignore[arg-type]
    assert before == (Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK)


def test_beyond_the_limit_the_size_is_said() -> None:
    header = png(np.zeros((1, 1, 1), np.uint8))
    size = struct.pack(">II", 1 << 15, 1 << 14)
    body = b"IHDR" + size + header[24:29]
    huge = header[:12] + body + struct.pack(">I", zlib.crc32(body)) + header[33:]
    with pytest.raises(DataError, match=f"got 32768x16384 pixels, expected at most {MAX_PIXELS}"):
        load_image(io.BytesIO(huge))


def test_threads_leave_pillows_limits_as_they_were() -> None:
    before = Image.MAX_IMAGE_PIXELS
    content = png(noise(np.uint16, (40, 50, 3)))  # type: ignore[arg-type]
    threads = [
        threading.Thread(target=lambda: [load_image(io.BytesIO(content)) for _ in range(20)])
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert before == Image.MAX_IMAGE_PIXELS


def encoded(form: str) -> bytes:
    file = io.BytesIO()
    smooth = np.linspace(0, 255, 24 * 32 * 3).reshape(24, 32, 3).astype(np.uint8)
    Image.fromarray(smooth).save(file, form)
    return file.getvalue()


FILES: dict[str, Callable[[], bytes]] = {
    "JPEG": lambda: encoded("JPEG"),
    "PNG": lambda: encoded("PNG"),
    "PNG of 16 bits": lambda: png(noise(np.uint16, (24, 32, 3))),  # type: ignore[arg-type]
    "TIFF": lambda: encoded("TIFF"),
    "TIFF of 16 bits": lambda: (CASES / "white_is_zero16.tif").read_bytes(),
    "BMP": lambda: encoded("BMP"),
    "WebP": lambda: encoded("WEBP"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("form", FILES)
def test_a_damaged_file_is_an_image_or_one_sentence(form: str) -> None:
    """Flipped, inserted, cut and zeroed bytes; seeded, so that a failure comes again."""
    random = np.random.default_rng(11)
    whole = FILES[form]()
    said = []
    for _ in range(FUZZED // len(FILES) + 1):
        content = bytearray(whole)
        for _ in range(random.integers(1, 6)):
            at = int(random.integers(len(content)))
            kind = random.integers(4)
            if kind == 0:
                content[at] = int(random.integers(256))
            elif kind == 1:
                content[at:at] = random.bytes(int(random.integers(1, 9)))
            elif kind == 2:
                content[at : at + 16] = bytes(len(content[at : at + 16]))
            elif len(content) > 64:
                del content[max(at, 32) :]
        try:
            image = load_image(io.BytesIO(bytes(content)))
        except DataError as error:
            said.append(str(error))
        else:
            assert image.dtype == np.uint8
            assert image.ndim == 3
    assert said
    assert not any("\n" in sentence for sentence in said)
