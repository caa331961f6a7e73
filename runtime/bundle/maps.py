"""Maps of more images than memory may hold, taken one after the other."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import compress
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from stpm.runtime.errors import DataError

MOST_IN_MEMORY = 1 << 28
"""Bytes of maps; more go to a file."""
_PASSES = ((21, 11), (10, 11), (0, 10))
"""Of 32 bits: how many lie below those that a pass settles, and how many it settles."""


class Maps(Protocol):
    """Maps float32 (h,w) of several images; an array (N,h,w) is such."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, h, w)."""
        ...

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Any]: ...


class MapStore:
    """Maps in memory, or in a temporary file once they are many; it goes with this object."""

    def __init__(self, most_in_memory: int = MOST_IN_MEMORY) -> None:
        self._file = tempfile.SpooledTemporaryFile(max_size=most_in_memory)  # noqa: SIM115
        self._count = 0
        self._size = (0, 0)

    def append(self, maps: NDArray[np.float32]) -> None:
        """Keep maps (N,h,w), of the size of those before.

        Raises:
            DataError: there is no room for the file.
        """
        self._size = (maps.shape[1], maps.shape[2])
        try:
            self._file.seek(0, 2)
            self._file.write(np.ascontiguousarray(maps, np.float32).tobytes())
            self._file.flush()
        except OSError as error:
            raise DataError(
                f"the maps of {self._count + len(maps)} images cannot be kept in "
                f"{tempfile.gettempdir()} ({error.strerror}); name a folder with more room in the "
                "environment variable TMPDIR."
            ) from error
        self._count += len(maps)

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, h, w)."""
        return self._count, *self._size

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        size_bytes = self._size[0] * self._size[1] * np.dtype(np.float32).itemsize
        for number in range(self._count):
            self._file.seek(number * size_bytes)
            yield np.frombuffer(self._file.read(size_bytes), np.float32).reshape(self._size)


@dataclass(frozen=True)
class Chosen:
    """Those of several maps that bool (N,) says."""

    maps: Maps
    kept: NDArray[np.bool_]

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, h, w)."""
        return len(self), *self.maps.shape[1:]

    def __len__(self) -> int:
        return int(self.kept.sum())

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        return compress(self.maps, self.kept)


def nth_highest(maps: Maps, rank: int) -> float:
    """Return the value that exactly `rank` values of all maps stand before, by falling value.

    Each pass counts the values by some of their bits, written so that they rise as the values do.

    Args:
        maps: finite.
        rank: from 0 to less than the number of values.
    """
    prefix = 0
    for shift, width in _PASSES:
        counts = np.zeros(1 << width, np.int64)
        for one in maps:
            keys = _rising_keys(one) >> np.uint32(shift)
            if prefix:  # no finite value's highest bits are all zero
                keys = keys[keys >> np.uint32(width) == prefix]
            counts += np.bincount(keys & np.uint32(len(counts) - 1), minlength=len(counts))
        before = np.cumsum(counts[::-1])
        place = int(np.searchsorted(before, rank, side="right"))
        rank -= int(before[place - 1]) if place else 0
        prefix = prefix << width | (len(counts) - 1 - place)
    bits = prefix ^ (1 << 31) if prefix >> 31 else prefix ^ 0xFFFFFFFF
    return float(np.uint32(bits).view(np.float32))


def _rising_keys(values: NDArray[np.float32]) -> NDArray[np.uint32]:
    """Return integers in the order of the values (N,)."""
    bits = np.ascontiguousarray(values, np.float32).reshape(-1).view(np.uint32)
    return np.where(bits >> np.uint32(31), ~bits, bits | np.uint32(1 << 31))
