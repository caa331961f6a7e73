"""What serves one thread at a time, lent to any number of threads, such as an engine's buffers."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

T = TypeVar("T")


class Pool(Generic[T]):
    """Lends what is idle, the last used first, which is in the caches; as `src/pool.hpp` does."""

    def __init__(self, make: Callable[[], T]) -> None:
        """Begin empty; the thread that finds nothing idle calls `make`, with no lock held.

        A `make` that holds the pool's owner would keep its memory until a garbage collection.
        """
        self._make = make
        self._idle: deque[T] = deque()  # whose append and pop need no lock

    @contextmanager
    def one(self) -> Iterator[T]:
        """Lend one until this is left."""
        taken = self._take()
        try:
            yield taken
        finally:
            self._idle.append(taken)

    @contextmanager
    def several(self, count: int) -> Iterator[list[T]]:
        """Lend `count`; they come back even where one of them cannot be made."""
        taken: list[T] = []
        try:
            for _ in range(count):
                taken.append(self._take())
            yield taken
        finally:
            self._idle.extend(reversed(taken))  # the first is the next one's first

    def _take(self) -> T:
        try:
            return self._idle.pop()
        except IndexError:
            return self._make()
