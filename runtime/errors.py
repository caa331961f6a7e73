"""The errors that stpm raises: what was wrong (got X, expected Y) and how to fix it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class StpmError(Exception):
    """Base of every known failure; the commands print its one sentence and exit with code 1."""


class DataError(StpmError):
    """An image, mask or folder cannot be used."""


class CheckpointError(StpmError):
    """A checkpoint or a teacher's weights cannot be used."""


class ExportError(StpmError):
    """A checkpoint cannot be turned into a deployment graph."""


class ParityError(StpmError):
    """An engine's scores or maps differ from the reference by more than its precision allows."""


class BackendError(StpmError):
    """An engine is not installed, or cannot run this bundle on this machine."""


class BundleError(StpmError):
    """A bundle is malformed, incomplete, altered or of an unknown version."""


@contextmanager
def about(name: object) -> Iterator[None]:
    """Begin the message of a DataError with the name of the image that it is about."""
    try:
        yield
    except DataError as error:
        if str(error).startswith(str(name)):
            raise
        raise DataError(f"{name}: {error}") from error


def one_line(error: BaseException) -> str:
    """Return what a library's error says, in one line."""
    return " ".join(str(error).split()) or type(error).__name__
