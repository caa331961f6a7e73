"""Images and masks, one at a time or as an array: files, and members of files that hold many."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from stpm.runtime.errors import DataError
from stpm.runtime.images.preprocess import FULL_DEPTH, load_image, read_pixels, resize
from stpm.runtime.output.console import note
from stpm.train.datasets.cifar10_files import read_member
from stpm.train.datasets.idx import is_idx, read_idx_member
from stpm.train.datasets.samples import Sample

MOST_THREADS = 8
"""That decode images at once."""
UNUSED_BITS = 2
"""Upper bits that no value of 16 may have before it is said."""
MASK_EDGE = 0.25
"""Share of a mask's range at either end that counts as its dark or bright value."""
MOST_BETWEEN = 0.02
"""Share of pixels that may lie between: the edges of defects in a mask saved as JPEG."""


def read_image(path: Path, bit_depth: int = FULL_DEPTH) -> NDArray[np.uint8]:
    """Read one image as `load_image` does, also from a data set's file of many.

    Args:
        path: of an image, or of a batch of CIFAR-10 or an IDX file of MNIST with the image's number
            below, as in `data_batch_1/00042`.
        bit_depth: see `load_image`.

    Returns:
        uint8 (H,W,3), RGB.

    Raises:
        DataError: it cannot be read.
    """
    if not path.parent.is_file():
        return load_image(path, bit_depth)
    return read_idx_member(path) if is_idx(path.parent) else read_member(path)


def image_exists(path: Path) -> bool:
    """Whether there is a file for `read_image` to read."""
    return path.is_file() or path.parent.is_file()


def open_array(path: Path) -> NDArray[Any]:
    """Open a .npy file without reading it whole, nor unpickling anything.

    Raises:
        DataError: the file is missing or malformed.
    """
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file; restore it.") from None
    except (ValueError, OSError, EOFError) as error:
        raise DataError(f"{path}: not a readable .npy array ({error}); restore it.") from error
    return array


def read_mask(sample: Sample, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Read a sample's ground truth at (height, width), nearest neighbour; all False without a mask.

    Raises:
        DataError: the mask cannot be decoded, does not say which pixels are defective, or its size
            differs from its image's.
    """
    if sample.mask is None:
        return np.zeros(size, dtype=np.bool_)
    values = _mask_values(sample.mask)
    mask = values > 0 if sample.mask_is_labels else _defective(values, sample.mask)
    image_size = read_image(sample.path).shape[:2]
    if mask.shape != image_size:
        raise DataError(
            f"{sample.mask}: has {mask.shape[0]}x{mask.shape[1]} pixels, expected "
            f"{image_size[0]}x{image_size[1]} like its image; export the mask again."
        )
    height, width = size
    return np.asarray(Image.fromarray(mask).resize((width, height), Image.Resampling.NEAREST))


def _mask_values(path: Path) -> NDArray[Any]:
    """Read a mask (H,W) at its full depth: the largest of a pixel's colours, or a palette's index.

    Or one frame of an array of many.
    """
    if path.parent.suffix == ".npy" and path.parent.is_file():
        return np.asarray(open_array(path.parent)[int(path.name)])
    values = read_pixels(path, keep_indices=True)
    return values if values.ndim == 2 else values.max(axis=2)


def _defective(values: NDArray[Any], path: Path) -> NDArray[np.bool_]:
    """Say which pixels of a mask are defective: those that are not zero.

    A mask that is blurred at its edges, as by JPEG, is cut in the middle of its range, but only
    if nearly all pixels are near one end of it: greys in between could mean anything.
    """
    found = np.unique(values)
    if len(found) <= 2 and (found[0] == 0 or len(found) == 1):
        return np.asarray(values > 0)
    share = values.astype(np.float64) / found[-1]
    between = float(np.mean((share > MASK_EDGE) & (share < 1 - MASK_EDGE)))
    if found[0] > MASK_EDGE * found[-1] or between > MOST_BETWEEN:
        raise DataError(
            f"{path}: is a mask with the values "
            f"{', '.join(map(str, found[:5]))}{', ...' if len(found) > 5 else ''}, of "
            f"which {between:.1%} are between dark and bright, expected 0 for good pixels "
            "and one other value for defective ones; save it like that."
        )
    return np.asarray(share > 0.5)


def read_images(
    paths: Sequence[Path],
    size: tuple[int, int],
    *,
    on_bad: Callable[[DataError], None] | None = None,
    bit_depth: int = FULL_DEPTH,
) -> tuple[list[Path], NDArray[np.uint8]]:
    """Read and resize images into one array.

    Args:
        paths: the images, see `read_image`.
        size: (height, width) in pixels.
        on_bad: called with the error of a file that cannot be decoded, which is then left out
            unless it raises a DataError; None stops at the first one.
        bit_depth: see `load_image`.

    Returns:
        The paths that were read, and uint8 (N,height,width,3).

    Raises:
        DataError: a file cannot be decoded and is not left out, or none could be.
    """
    kept: list[Path] = []
    images = np.empty((len(paths), *size, 3), np.uint8)  # a list and np.stack would take it twice

    def resized(path: Path) -> NDArray[np.uint8] | DataError:
        try:
            return resize(read_image(path, bit_depth), size)
        except DataError as error:
            return error

    # Decoders let other threads run meanwhile.
    with ThreadPoolExecutor(min(MOST_THREADS, os.cpu_count() or 1)) as pool:
        try:
            for path, read in zip(paths, pool.map(resized, paths), strict=True):
                if not isinstance(read, DataError):
                    images[len(kept)] = read
                    kept.append(path)
                elif on_bad is None:
                    raise read
                else:
                    on_bad(read)
        except DataError:
            pool.shutdown(cancel_futures=True)
            raise
    if not kept:
        raise DataError("none of the images could be decoded; expected at least one.")
    return kept, images[: len(kept)]


def note_unused_range(paths: Sequence[Path], images: NDArray[np.uint8]) -> None:
    """Say it where 16-bit files use so little of their range that 8 bits keep next to nothing.

    Args:
        paths: of the images, files of their own.
        images: as `read_images` gives them.
    """
    if images.max() >= 256 >> UNUSED_BITS or paths[0].parent.is_file():
        return
    deepest = [read_pixels(path) for path in paths]
    highest = max(int(pixels.max()) for pixels in deepest)
    if all(pixels.dtype == np.uint16 for pixels in deepest):
        note(
            f"{paths[0].parent}: the highest 16-bit value is {highest}, so the camera seems "
            f"to have {max(highest.bit_length(), 1)} bits; the network sees only "
            f"{images.max() + 1} of 256 levels. Train with --bit-depth "
            f"{max(highest.bit_length(), 8)}"
        )


def data_hash(images: NDArray[np.uint8]) -> str:
    """Hash the pixels that training sees (sha256, hexadecimal)."""
    return hashlib.sha256(np.ascontiguousarray(images).data).hexdigest()
