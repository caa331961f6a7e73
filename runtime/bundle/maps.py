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
