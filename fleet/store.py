"""Folders of images and bundles wherever fsspec reaches: s3://, gs://, https://, and the disk."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from stpm.runtime.errors import BackendError, DataError
from stpm.runtime.images.listing import images_below
from stpm.runtime.images.preprocess import IMAGE_SUFFIXES


def is_remote(path: str) -> bool:
    """Say whether a path names a store and not the disk."""
    return "://" in path


def list_images(folder: str) -> list[str]:
    """Name the images below a folder, sorted.

    Raises:
        BackendError: the store's package is not installed, or it cannot be reached.
        DataError: there is no image.
    """
    if is_remote(folder):
        system, root = _system(folder)
        names = _names_below(system, root, folder)
        found = [system.unstrip_protocol(name) for name in names if _is_image(name)]
    else:
        found = [str(path) for path in images_below(Path(folder)).images]
    if not found:
        raise DataError(f"{folder}: contains no images; check the path.")
    return sorted(found)


def read(path: str) -> Path | io.BytesIO:
    """Return what `load_image` takes for a path: itself, or the content of a store's object.

    Raises:
        DataError: the object cannot be read.
    """
    if not is_remote(path):
        return Path(path)
    system, name = _system(path)
    try:
        content = io.BytesIO(system.cat_file(name))
    except Exception as error:
        raise DataError(
            f"{path}: cannot be read ({_one_line(error)}); check the address."
        ) from error
    content.name = path
    return content


@contextmanager
def local_bundle(path: str) -> Iterator[Path]:
    """Yield a bundle's folder on this disk; one in a store is copied for the time of the block.

    Raises:
        BackendError: the store cannot be reached.
        DataError: a file cannot be read.
    """
    if not is_remote(path):
        yield Path(path)
        return
    system, root = _system(path)
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(folder) / PurePosixPath(root).name
        bundle.mkdir()
        for name in _names_below(system, root, path):
            content = read(system.unstrip_protocol(name))
            assert isinstance(content, io.BytesIO)
            (bundle / PurePosixPath(name).name).write_bytes(content.getvalue())
        yield bundle


def _system(path: str) -> tuple[Any, str]:
    try:
        import fsspec

        system, name = fsspec.core.url_to_fs(path)
    except (ImportError, ValueError) as error:
        raise BackendError(
            f"{path}: cannot be opened ({_one_line(error)}); run pip install 'stpm[fleet]', or "
            "fsspec's package for that store."
        ) from error
    return system, name


def _names_below(system: Any, root: str, path: str) -> list[str]:
    try:
        # By default a folder that cannot be listed is left out, and nothing said.
        walk = system.walk(root, on_error="raise")
        return [f"{folder.rstrip('/')}/{name}" for folder, _, files in walk for name in files]
    except Exception as error:
        # Each store's library has errors of its own.
        raise BackendError(
            f"{path}: cannot be listed ({_one_line(error)}); check the address and its credentials."
        ) from error


def _is_image(name: str) -> bool:
    path = PurePosixPath(name)
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
