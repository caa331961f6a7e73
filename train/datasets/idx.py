"""Read MNIST's IDX files, as they are or compressed by gzip."""

from __future__ import annotations

import gzip
import math
import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stpm.runtime.errors import DataError
from stpm.train.datasets.file_cache import cached_by_file

ENDINGS = ("ubyte", "ubyte.gz")
MAX_FILE_BYTES = 64 * 2**20
"""Uncompressed; 60,000 images take 47 MB."""
UINT8_CODE = 8


def is_idx(path: Path) -> bool:
    """Whether the name is one of an IDX file of bytes."""
    return path.name.endswith(ENDINGS)


@cached_by_file(4)
def read_idx(path: Path) -> NDArray[np.uint8]:
    """Read an array of bytes; the last four stay in memory.

    Returns:
        uint8 (N,) of labels or (N,H,W) of images, read-only.

    Raises:
        DataError: the file is missing or malformed.
    """
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
        if len(content) > MAX_FILE_BYTES:
            raise ValueError(f"it has more than {MAX_FILE_BYTES} bytes")
        zeros, code, dimensions = struct.unpack_from(">HBB", content)
        if zeros or code != UINT8_CODE:
            raise ValueError("it does not begin with the header of an array of bytes")
        shape = struct.unpack_from(f">{dimensions}I", content, 4)
        begin = 4 + 4 * dimensions
        if len(content) - begin != math.prod(shape):
            raise ValueError(f"it contains {len(content) - begin} values, not {shape}")
    except (OSError, EOFError, ValueError, struct.error) as error:
        raise DataError(f"{path}: not an IDX file ({error}); download it again.") from error
    return np.frombuffer(content, np.uint8, offset=begin).reshape(shape)


def read_idx_member(path: Path) -> NDArray[np.uint8]:
    """Read one image, its grey levels three times, uint8 (H,W,3).

    Args:
        path: the file's path with the image's number below, as in `train-images-idx3-ubyte/00042`.

    Raises:
        DataError: see `read_idx`, or the file has no such image.
    """
    images = read_idx(path.parent)
    if images.ndim != 3 or not path.name.isdecimal() or int(path.name) >= len(images):
        raise DataError(
            f"{path}: got image {path.name!r} of an array of shape {images.shape}, expected a "
            "number below the first of three sizes; restore the file."
        )
    return np.repeat(images[int(path.name), :, :, None], 3, axis=2)
