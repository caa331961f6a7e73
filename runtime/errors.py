"""The errors that stpm raises: what was wrong (got X, expected Y) and how to fix it."""


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


def one_line(error: BaseException) -> str:
    """Return what a library's error says, in one line."""
    return " ".join(str(error).split()) or type(error).__name__
