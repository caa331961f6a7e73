"""From an image in any common form to the uint8 array that the deployment graph takes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from stpm.runtime.errors import DataError
from stpm.runtime.images.decoding import decode, pixels_of

ImageSource = str | Path | IO[bytes] | Image.Image | NDArray[np.uint8] | NDArray[np.uint16]
"""A path, a binary file object, a Pillow image, or an array (H,W), (H,W,1), (H,W,3) or (H,W,4) in
RGB(A) order."""

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".jfif"})
FULL_DEPTH = 16
"""Bits of a deep pixel where a camera fills them all."""
RGB = 3
"""Channels of a colour image; a grey one has 1."""


def load_image(
    source: ImageSource, bit_depth: int = FULL_DEPTH, channels: int = RGB
) -> NDArray[np.uint8]:
    """Read one image with 8 bits, upright, in RGB or as one plane of grey.

    In RGB grey becomes three equal channels, a palette its colours; transparency is dropped, the
    full scale of deep pixels becomes 255, rounded, and an EXIF orientation is applied.

    Args:
        source: see `ImageSource`. Array channels are RGB or RGBA; uint8 or uint16.
        bit_depth: bits of 16 that the camera uses, 8 to 16; 8-bit images are as they are.
        channels: 3 for RGB, 1 for grey.

    Returns:
        uint8 (H,W,channels).

    Raises:
        DataError: the file cannot be read as an image, the array has another shape or dtype, a
            pixel has more bits than the camera, or one plane is asked for of colours.
    """
    if isinstance(source, np.ndarray):
        pixels, name = source, "image"
    else:
        pixels, name = read_pixels(source), _name(source)
    return with_channels(_eight_bits(pixels, bit_depth, name), channels, name)


def with_channels(image: NDArray[np.uint8], channels: int, name: str = "") -> NDArray[np.uint8]:
    """Bring an image to one plane of grey, or to RGB.

    Args:
        image: uint8 (H,W,1) or (H,W,3).
        channels: 1 or 3.
        name: of the image, for an error.

    Returns:
        uint8 (H,W,channels), contiguous.

    Raises:
        DataError: one plane is asked for of an image whose channels differ.
    """
    if image.shape[2] > channels and not all(
        np.array_equal(image[..., 0], image[..., other]) for other in range(1, image.shape[2])
    ):
        raise DataError(
            f"{name and f'{name}: '}got an image whose red, green and blue differ, expected grey, "
            "which is all that the graph takes; export without --grey for a colour camera."
        )
    plane = image if image.shape[2] == channels else image[..., :1]
    return np.ascontiguousarray(np.broadcast_to(plane, (*image.shape[:2], channels)))


def picture_of(image: NDArray[np.uint8]) -> Image.Image:
    """Return pixels uint8 (H,W,1) or (H,W,3) as a Pillow image, grey or RGB."""
    return Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)


def image_sizes(paths: Sequence[Path], bit_depth: int = FULL_DEPTH) -> list[tuple[int, int]]:
    """Return files' (height, width) in pixels, as `load_image` reads them; DataError as there."""
    images = (load_image(path, bit_depth) for path in paths)
    return [(image.shape[0], image.shape[1]) for image in images]


def read_pixels(
    source: str | Path | IO[bytes] | Image.Image, *, keep_indices: bool = False
) -> NDArray[Any]:
    """Read the pixels of a file or a Pillow image, upright and at their own depth.

    Args:
        source: see `ImageSource`.
        keep_indices: see `decode`; for files alone.

    Returns:
        uint8 or uint16, (H,W) for grey, (H,W,3) for colour.

    Raises:
        DataError: the file cannot be read as an image.
    """
    name = _name(source)
    try:
        if isinstance(source, Image.Image):
            return pixels_of(source)
        return decode(source, keep_indices=keep_indices)
    except FileNotFoundError:
        raise DataError(f"{name}: there is no such file; check the path.") from None
    except UnidentifiedImageError:
        raise DataError(
            f"{name}: not an image that can be decoded; expected PNG, JPEG, BMP, TIFF or WebP."
        ) from None
    except Exception as error:
        # Pillow's decoders let many kinds of error through when a file is damaged.
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{name}: the image cannot be decoded ({reason}); replace it.") from error


def resize(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Resize with Pillow's antialiased bilinear filter, the one that training uses.

    Columns first, then rows, each rounded to grey levels: Pillow 13 began to choose the order by
    the image's shape, and a score may not depend on Pillow's version.

    Args:
        image: uint8 (H,W,C), C of 1 or 3.
        size: (height, width) in pixels.

    Returns:
        uint8 (height,width,C); the image itself when it has that size already.
    """
    height, width = size
    if image.shape[:2] == (height, width):
        return image
    columns = picture_of(image).resize((width, image.shape[0]), Image.Resampling.BILINEAR)
    resized = np.asarray(columns.resize((width, height), Image.Resampling.BILINEAR))
    return resized.reshape(height, width, image.shape[2])


def _name(source: str | Path | IO[bytes] | Image.Image) -> str:
    if isinstance(source, str | Path):
        return str(source)
    if isinstance(source, Image.Image):
        return "image"
    if not hasattr(source, "read"):
        raise DataError(
            f"got {type(source).__name__} as an image, expected a path, a binary file object, a "
            "Pillow image or an array."
        )
    return str(getattr(source, "name", "image stream"))


def _eight_bits(
    array: NDArray[np.uint8] | NDArray[np.uint16], bit_depth: int, name: str
) -> NDArray[np.uint8]:
    """Bring an array of any shape and depth that is taken to uint8 (H,W,1) or (H,W,3)."""
    grey = array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 1)
    colour = array.ndim == 3 and array.shape[2] in (3, 4)
    if array.dtype not in (np.uint8, np.uint16) or not (grey or colour) or 0 in array.shape:
        raise DataError(
            f"got an array of dtype {array.dtype} and shape {array.shape}, expected uint8 or "
            "uint16 of shape (H,W), (H,W,1), (H,W,3) or (H,W,4) in RGB(A) order; convert it."
        )
    if array.dtype == np.uint16:
        full = (1 << bit_depth) - 1
        if bit_depth < FULL_DEPTH and array.max() > full:
            raise DataError(
                f"{name}: got a value of {array.max()} from a camera of {bit_depth} bits, "
                f"expected at most {full}; train with the camera's --bit-depth."
            )
        array = ((array.astype(np.uint32) * 255 + full // 2) // full).astype(np.uint8)
    pixels = array.reshape(*array.shape[:2], 1) if grey else array[..., :RGB]
    return pixels.astype(np.uint8, copy=False)
