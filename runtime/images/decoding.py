"""From an image file to its pixels at full depth: what Pillow reads right, and nothing else.

Pillow reads some files to other pixels than they hold, without a word: TIFF's variants that it has
no mode for, 16-bit colours without their lower half, several pages as one. These are mended or
refused.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, PngImagePlugin, TiffImagePlugin

MAX_PIXELS = 16384 * 16384
"""Pixels of the largest image: the largest that a bundle's graph may take; 800 MB in RGB."""
MAX_METADATA_BYTES = 1 << 28
"""Colour profiles and texts of one file, unpacked: real ones have megabytes."""

BITS, COMPRESSION, PHOTOMETRIC, PLANES, PREDICTOR = 258, 259, 262, 284, 317
FORMAT, SUBFILE = 339, 254
"""Numbers of TIFF tags (TIFF 6.0, sections 8 and 14)."""
WHITE_IS_ZERO, SEPARATE_PLANES, UNSIGNED, REDUCED, NO_PREDICTOR = 0, 2, 1, 1, 1
NO_COMPRESSION, PACK_BITS = 1, 32773


def decode(source: Any, *, keep_indices: bool = False) -> NDArray[Any]:
    """Read an image, upright, without changing its depth.

    Args:
        source: what `PIL.Image.open` takes.
        keep_indices: read the indices of a palette, not its colours.

    Returns:
        uint8 or uint16 (H,W) for grey, (H,W,3) for colour.

    Raises:
        ValueError: the file has several pages, more than `MAX_PIXELS`, or pixels of a kind that
            is not read.
        Exception: whatever Pillow's decoders raise for a damaged file.
    """
    with _room_for_large_files(), Image.open(source) as image:
        if keep_indices and image.mode == "P":
            _choose_page(image)
            return np.asarray(ImageOps.exif_transpose(image))
        return pixels_of(image)


def pixels_of(image: Image.Image) -> NDArray[Any]:
    """Take the pixels of an opened image; see `decode`."""
    if image.width * image.height > MAX_PIXELS:
        raise ValueError(
            f"got {image.width}x{image.height} pixels, expected at most {MAX_PIXELS} in all; "
            "cut it into parts"
        )
    _choose_page(image)
    tags = image.tag_v2 if isinstance(image, TiffImagePlugin.TiffImageFile) else None
    if tags is not None:
        _check_tiff(tags)
    inverted = tags is not None and tags.get(PHOTOMETRIC) == WHITE_IS_ZERO
    array = _deep_pixels(image)
    if array is None:
        return _eight_bits(image)
    # Pillow turns a TIFF upright itself when it reads the pixels.
    array = array if tags is not None else _upright(array, image)
    return np.iinfo(np.uint16).max - array if inverted else array


@contextmanager
def _room_for_large_files() -> Iterator[None]:
    """Lift Pillow's limits, which are the process's, while a file is read: ours is `MAX_PIXELS`."""
    _limits.lift()
    try:
        yield
    finally:
        _limits.restore()


class _Limits:
    """Counts the threads that read, so that the last one restores what the first one found."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._readers = 0
        self._found: tuple[int | None, int, int] = (None, 0, 0)

    def lift(self) -> None:
        with self._lock:
            if not self._readers:
                png = PngImagePlugin
                self._found = Image.MAX_IMAGE_PIXELS, png.MAX_TEXT_CHUNK, png.MAX_TEXT_MEMORY
                Image.MAX_IMAGE_PIXELS = None
                png.MAX_TEXT_CHUNK = png.MAX_TEXT_MEMORY = MAX_METADATA_BYTES
            self._readers += 1

    def restore(self) -> None:
        with self._lock:
            self._readers -= 1
            if not self._readers:
                png = PngImagePlugin
                Image.MAX_IMAGE_PIXELS, png.MAX_TEXT_CHUNK, png.MAX_TEXT_MEMORY = self._found


_limits = _Limits()


def _choose_page(image: Image.Image) -> None:
    """Go to the only page that is no thumbnail of another.

    A JPEG's further pictures (MPO) are previews and other views of the first.
    """
    count = getattr(image, "n_frames", 1)
    if count == 1 or image.format == "MPO":
        return
    whole = list(range(count))
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        whole = [page for page in whole if not _is_thumbnail(image, page)]
    if len(whole) != 1:
        raise ValueError(f"got {count} pages, expected one; save each page as a separate file")
    image.seek(whole[0])


def _is_thumbnail(image: TiffImagePlugin.TiffImageFile, page: int) -> bool:
    image.seek(page)
    return bool(image.tag_v2.get(SUBFILE, 0) & REDUCED)


def _check_tiff(tags: Any) -> None:
    """Refuse what Pillow has no mode for and reads to something else."""
    bits = tags.get(BITS, (1,))
    formats = set(tags.get(FORMAT, (UNSIGNED,)))
    if formats != {UNSIGNED}:
        raise ValueError(
            f"got TIFF pixels of SampleFormat {', '.join(map(str, sorted(formats)))}, expected 1, "
            "unsigned integers; convert them"
        )
    # libtiff leaves the differences as they are, others add them up.
    if tags.get(PREDICTOR, NO_PREDICTOR) != NO_PREDICTOR and (
        tags.get(COMPRESSION, NO_COMPRESSION) in (NO_COMPRESSION, PACK_BITS)
    ):
        raise ValueError(
            f"got TIFF pixels of Predictor {tags[PREDICTOR]} without LZW or Deflate, on "
            "which readers disagree; save it again without a predictor"
        )
    if len(set(bits)) > 1 or bits[0] not in (1, 2, 4, 8, 16):
        raise ValueError(
            f"got TIFF pixels of {', '.join(map(str, sorted(set(bits))))} bits, expected 8 "
            "or 16; convert them, scaled from their own range"
        )
    if bits[0] == 16 and len(bits) > 1 and tags.get(PLANES, 1) == SEPARATE_PLANES:
        raise ValueError(
            "got 16-bit TIFF colours in separate planes (PlanarConfiguration 2), expected "
            "interleaved pixels; save it again interleaved"
        )
    if bits[0] == 16 and tags.get(PHOTOMETRIC) not in (WHITE_IS_ZERO, 1, 2):
        raise ValueError(
            f"got 16-bit TIFF pixels of PhotometricInterpretation {tags.get(PHOTOMETRIC)}, "
            "expected grey or RGB; convert them"
        )


def _deep_pixels(image: Image.Image) -> NDArray[Any] | None:
    """Read 16-bit pixels (H,W) or (H,W,3) as uint16; None of an image that has 8 bits or fewer."""
    if image.mode == "F":
        raise ValueError("got floating-point pixels, expected 8 or 16 bits; convert them")
    if image.mode == "I" and image.format not in ("PNG", "PPM", None):
        raise ValueError("got 32-bit pixels, expected 8 or 16 bits; convert them")
    if image.mode.startswith("I"):
        grey = np.asarray(image)
        if grey.min() < 0 or grey.max() > np.iinfo(np.uint16).max:
            raise ValueError(
                f"got pixels of {grey.min()} to {grey.max()}, expected 8 or 16 bits; convert them"
            )
        return grey.astype(np.uint16)
    layout = _rawmode(image)
    if ";16" not in layout:
        return None
    if layout == "LA;16B":  # no mode reads the lower bytes; as four of 8 bits they all come
        bytes_of = _with_rawmode(image, "RGBA", "RGBA")
        return bytes_of[..., 0].astype(np.uint16) << 8 | bytes_of[..., 1]
    if not layout.startswith(("RGB;16", "RGBA;16", "RGBX;16")):
        raise ValueError(
            f"got 16-bit pixels of the kind {layout}, expected grey or RGB; convert it"
        )
    # Pillow keeps the first byte that the byte order names; the other order names the other one.
    kind, order = layout.split(";16")
    little = order == "L" or (order == "N" and sys.byteorder == "little")
    high, low = (
        _with_rawmode(image, image.mode, f"{kind};16{o}") for o in ("LB" if little else "BL")
    )
    return (high.astype(np.uint16) << 8 | low)[..., :3]


def _rawmode(image: Image.Image) -> str:
    """Return how the file's pixels are laid out, as its decoder is told; "" where it is not."""
    tiles = getattr(image, "tile", None)
    arguments = tiles[0][3] if tiles else ""
    layout = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return layout if isinstance(layout, str) else ""


def _with_rawmode(image: Image.Image, mode: str, rawmode: str) -> NDArray[np.uint8]:
    """Decode a file's pixels as if it were laid out otherwise."""
    page = image.tell()
    with Image.open(_again(image)) as other:
        other.seek(page)
        other.tile = [_laid_out(tile, rawmode) for tile in other.tile]
        other._mode = mode
        return np.asarray(other)


def _laid_out(tile: Any, rawmode: str) -> Any:
    """Change what a decoder is told of a part's layout; Pillow 11 named the parts' fields."""
    arguments = (rawmode, *tile[3][1:]) if isinstance(tile[3], tuple) else rawmode
    fields = (*tile[:3], arguments)
    return type(tile)(*fields) if hasattr(tile, "_fields") else fields


def _again(image: Image.Image) -> Any:
    """Return what opens the same file once more."""
    if getattr(image, "filename", ""):
        return image.filename  # type: ignore[attr-defined]
    file = image.fp  # type: ignore[attr-defined]
    file.seek(0)
    return _Unclosed(file)


class _Unclosed:
    """A file that someone else closes."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def close(self) -> None:
        """Leave it open."""


def _upright(array: NDArray[Any], image: Image.Image) -> NDArray[Any]:
    """Apply an EXIF orientation; the eight are turns and mirrorings."""
    orientation = image.getexif().get(0x0112, 1)
    turns, mirrored = {
        2: (0, True),
        3: (2, False),
        4: (2, True),
        5: (1, True),
        6: (3, False),
        7: (3, True),
        8: (1, False),
    }.get(orientation, (0, False))
    array = array[:, ::-1] if mirrored else array
    return np.ascontiguousarray(np.rot90(array, turns))


def _eight_bits(image: Image.Image) -> NDArray[Any]:
    image = ImageOps.exif_transpose(image)
    if image.mode == "L":
        return np.asarray(image)
    # Pillow warns about a palette's transparency that a conversion loses.
    image.info.pop("transparency", None)
    return np.asarray(image.convert("RGB"))
