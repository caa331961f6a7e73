"""Read CIFAR-10's batch files: the binary version, and the pickles that torchvision downloads.

A pickle can run any code when it is loaded. These are read with every class replaced by one that
only keeps what it is given, so that nothing but plain values comes to life.
"""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stpm.runtime.errors import DataError
from stpm.train.datasets.file_cache import cached_by_file

CLASS_COUNT = 10
PLANES = (3, 32, 32)
"""Channels, rows and columns of an image as stored."""
IMAGE_BYTES = 3 * 32 * 32
MAX_FILE_BYTES = 64 * 2**20
"""A batch of 10,000 images takes 31 MB."""
NUMPY_NAMES = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
}
"""What an array's pickle refers to, before and since NumPy 2."""

Batch = tuple[NDArray[np.uint8], NDArray[np.uint8]]


@cached_by_file(2)
def read_batch(path: Path) -> Batch:
    """Read a batch; the last two stay in memory.

    Args:
        path: of the binary version if it ends in .bin, of the Python version otherwise.

    Returns:
        labels uint8 (N,) in [0, 9] and images uint8 (N,32,32,3), RGB, both read-only.

    Raises:
        DataError: the file is missing or is no batch of CIFAR-10.
    """
    size_bytes = path.stat().st_size
    if size_bytes > MAX_FILE_BYTES:
        raise DataError(
            f"{path}: has {size_bytes} bytes, expected at most {MAX_FILE_BYTES} for a batch "
            "of CIFAR-10; download it again."
        )
    try:
        content = path.read_bytes()
        labels, rows = _from_binary(content) if path.suffix == ".bin" else _from_pickle(content)
        if labels.size == 0 or labels.max() >= CLASS_COUNT:
            raise ValueError("the labels are not in 0 to 9")
    except Exception as error:
        # A damaged pickle fails in as many ways as there are opcodes.
        raise DataError(f"{path}: not a batch of CIFAR-10 ({error}); download it again.") from error
    images = np.ascontiguousarray(rows.reshape(-1, *PLANES).transpose(0, 2, 3, 1))
    for array in (labels, images):
        array.flags.writeable = False
    return labels, images


def read_member(path: Path) -> NDArray[np.uint8]:
    """Read one image of a batch, uint8 (32,32,3).

    Args:
        path: the batch's path with the image's number below, as in `data_batch_1/00042`.

    Raises:
        DataError: see `read_batch`, or the batch has no such image.
    """
    _, images = read_batch(path.parent)
    if not path.name.isdecimal() or int(path.name) >= len(images):
        raise DataError(
            f"{path}: got image {path.name!r} of a batch, expected a number below "
            f"{len(images)}; restore the file."
        )
    image: NDArray[np.uint8] = images[int(path.name)]
    return image


def _from_binary(content: bytes) -> Batch:
    record = 1 + IMAGE_BYTES
    if len(content) % record:
        raise ValueError(f"its size is not a multiple of {record} bytes")
    records = np.frombuffer(content, np.uint8).reshape(-1, record)
    return records[:, 0], records[:, 1:]


def _from_pickle(content: bytes) -> Batch:
    batch = _InertUnpickler(io.BytesIO(content), encoding="latin1").load()
    if not isinstance(batch, dict) or not isinstance(batch.get("labels"), list):
        raise ValueError("it has no list of labels")
    rows = _array(batch.get("data"))
    if len(batch["labels"]) != len(rows):
        raise ValueError(f"it has {len(batch['labels'])} labels for {len(rows)} images")
    return np.array(batch["labels"], np.uint8), rows


class _Inert:
    """Stands for NumPy's array and dtype: keeps what it is built from, and runs nothing."""

    state: Any = None

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _InertUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> type[_Inert]:
        if (module, name) in NUMPY_NAMES:
            return _Inert
        raise pickle.UnpicklingError(f"it refers to {module}.{name}, which is not loaded")


def _array(value: object) -> NDArray[np.uint8]:
    """Build the array (N,3072) from the state that NumPy would set."""
    if not isinstance(value, _Inert) or not isinstance(value.state, tuple):
        raise ValueError("its data is no array")
    _, shape, dtype, is_fortran, raw = value.state
    if dtype.arguments[0] != "u1" or shape[1:] != (IMAGE_BYTES,):
        raise ValueError(f"its data is of type {dtype.arguments[0]!r} and shape {shape}")
    # Python 2 wrote bytes as text.
    content = raw.encode("latin1") if isinstance(raw, str) else raw
    return np.frombuffer(content, np.uint8).reshape(shape, order="F" if is_fortran else "C")
