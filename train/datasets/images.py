"""Images and masks, one at a time or as an array: files, and members of files that hold many."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from stpm.runtime.errors import DataError
from stpm.runtime.preprocess import IMAGE_SUFFIXES, load_image, resize
from stpm.train.datasets.batches import read_member
from stpm.train.datasets.idx import is_idx, read_idx_member
from stpm.train.datasets.samples import Sample


def list_images(folder: Path) -> list[Path]:
    """List the images directly in a folder, sorted by name.

    Raises:
        DataError: the folder is missing or holds no image.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: there is no such folder; check the path.")
    paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
    if not paths:
        expected = ", ".join(sorted(IMAGE_SUFFIXES))
        raise DataError(f"{folder}: holds no image; expected files ending in {expected}.")
    return paths


def read_image(path: Path) -> NDArray[np.uint8]:
    """Read one image as `load_image` does, also from a data set's file of many.

    Args:
        path: of an image, or of a batch of CIFAR-10 or an IDX file of MNIST with the image's number
            below, as in `data_batch_1/00042`.

    Returns:
        uint8 (H,W,3), RGB.

    Raises:
        DataError: it cannot be read.
    """
    if not path.parent.is_file():
        return load_image(path)
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
        DataError: the mask cannot be decoded or its size differs from its image's.
    """
    if sample.mask is None:
        return np.zeros(size, dtype=np.bool_)
    mask = _mask_values(sample.mask, is_labels=sample.mask_above == 0) > sample.mask_above
    image_size = read_image(sample.path).shape[:2]
    if mask.shape != image_size:
        raise DataError(
            f"{sample.mask}: has {mask.shape[0]}x{mask.shape[1]} pixels, expected "
            f"{image_size[0]}x{image_size[1]} like its image; export the mask again."
        )
    height, width = size
    return np.asarray(Image.fromarray(mask).resize((width, height), Image.Resampling.NEAREST))


def _mask_values(path: Path, *, is_labels: bool) -> NDArray[Any]:
    """Read a mask (H,W): a picture's grey levels or labels, or one frame of an array of many."""
    if path.parent.suffix == ".npy" and path.parent.is_file():
        return np.asarray(open_array(path.parent)[int(path.name)])
    levels = load_image(path)[..., 0]
    if not is_labels:
        return levels
    with Image.open(path) as image:
        values = np.asarray(image)  # load_image would turn labels into a palette's colours
    return values if values.ndim == 2 else values[..., :3].max(axis=2)


def read_images(
    paths: Sequence[Path],
    size: tuple[int, int],
    *,
    on_bad: Callable[[DataError], None] | None = None,
) -> tuple[list[Path], NDArray[np.uint8]]:
    """Read and resize images into one array.

    Args:
        paths: the images, see `read_image`.
        size: (height, width) in pixels.
        on_bad: called with the error of a file that cannot be decoded, which is then left out;
            None stops at the first one.

    Returns:
        The paths that were read, and uint8 (N,height,width,3).

    Raises:
        DataError: a file cannot be decoded and `on_bad` is None, or none could be.
    """
    images = np.empty((len(paths), *size, 3), np.uint8)  # a list and np.stack would take it twice

    def read(position: int) -> DataError | None:
        try:
            images[position] = resize(read_image(paths[position]), size)
        except DataError as error:
            return error
        return None

    kept: list[int] = []
    with ThreadPoolExecutor() as pool:  # Pillow decodes and resizes without Python's lock
        try:
            for position, error in enumerate(pool.map(read, range(len(paths)))):
                if error is None:
                    kept.append(position)
                elif on_bad is None:
                    raise DataError(f"{error} Or leave such files out with --skip-bad.") from error
                else:
                    on_bad(error)
        finally:
            pool.shutdown(cancel_futures=True)
    if not kept:
        raise DataError("none of the images could be decoded; expected at least one.")
    return [paths[i] for i in kept], images if len(kept) == len(paths) else images[kept]


def data_hash(images: NDArray[np.uint8]) -> str:
    """Hash the pixels that training sees (sha256, hexadecimal)."""
    return hashlib.sha256(np.ascontiguousarray(images).data).hexdigest()
