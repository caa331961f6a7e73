"""Engines and fork: a process forks between two runs, and the child never touches its copy.

An engine's threads do not exist in a forked child: a run there waits for them without end, and so
does the copy's destructor. The child therefore opens an engine of its own and leaks the copy. A
fork in the middle of a run would leave the library's locks closed in the child, so it waits.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar
from weakref import WeakSet

T = TypeVar("T")


class _Gate:
    """Counts the threads that are inside an engine; shut while the process forks."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside: list[int] = []
        self._forking = 0

    def enter(self) -> None:
        me = threading.get_ident()
        with self._changed:
            # A thread that is inside already may go on, or the fork would wait for ever.
            self._changed.wait_for(lambda: not self._forking or me in self._inside)
            self._inside.append(me)

    def leave(self) -> None:
        with self._changed:
            self._inside.remove(threading.get_ident())
            self._changed.notify_all()

    def shut(self) -> None:
        me = threading.get_ident()
        with self._changed:
            self._forking += 1
            self._changed.wait_for(lambda: all(thread == me for thread in self._inside))

    def reopen(self) -> None:
        with self._changed:
            self._forking -= 1
            self._changed.notify_all()


class PerProcess(Generic[T]):
    """A value that each process opens for itself."""

    def __init__(self, opener: Callable[[], T]) -> None:
        """Open the value for this process."""
        self._opener = opener
        self._lock = threading.Lock()
        self._owner = os.getpid()
        self._value: T | None = None
        self.get()
        _values.add(self)

    def get(self) -> T:
        """Return this process's value; in a forked child the first call opens it."""
        if self._owner != os.getpid():
            self.abandon()
        value = self._value
        return self._open() if value is None else value

    def abandon(self) -> None:
        """Forget a copy that a fork made, without running its destructor."""
        if self._value is not None:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._value))
        self._value, self._lock, self._owner = None, threading.Lock(), os.getpid()

    def _open(self) -> T:
        # The gate first: a thread that waits for the lock counts as inside, so no fork copies a
        # closed lock.
        with no_fork(), self._lock:
            if self._value is None:
                self._value = self._opener()
            return self._value


@contextmanager
def no_fork() -> Iterator[None]:
    """Let a fork of this process, by Python, wait until this is left."""
    gate = _gate
    gate.enter()
    try:
        yield
    finally:
        gate.leave()


def _in_child() -> None:
    global _gate
    _gate = _Gate()
    for value in list(_values):
        value.abandon()


_gate = _Gate()
_values: WeakSet[PerProcess[Any]] = WeakSet()
if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(
        before=lambda: _gate.shut(),
        after_in_parent=lambda: _gate.reopen(),
        after_in_child=_in_child,
    )
