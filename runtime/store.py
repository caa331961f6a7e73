"""Folders of images and bundles in a store, s3://, gs://, https://: what fsspec reaches.

A store's files are copied once into the user's cache folder, and again when they change there.
"""

from __future__ import annotations

import io
import json
import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from stpm.runtime.backends.cache import cache_folder, cache_key, read_cache, write_cache
from stpm.runtime.errors import BackendError, DataError, one_line
from stpm.runtime.images.listing import images_below, is_ignored
from stpm.runtime.images.preprocess import IMAGE_SUFFIXES
from stpm.runtime.output.console import progress
from stpm.runtime.partial import partial_path

_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]+):/{1,2}([^/].*)")
"""Protocol and rest; `Path` makes one slash of two."""
_MARKS = ("ETag", "LastModified", "Last-Modified", "mtime", "generation", "content_md5")
"""What stores call what changes with a file's content."""
_INSTALL = {
    "s3": "pip install 'stpm[s3]'",
    "gs": "pip install gcsfs",
    "http": "pip install 'fsspec[http]'",
    "https": "pip install 'fsspec[http]'",
}
AT_ONCE = 64
"""Files that are asked for together."""


def is_remote(path: str | Path) -> bool:
    """Say whether a path names a store and not the disk."""
    return _ADDRESS.fullmatch(str(path)) is not None


def local(path: str | Path) -> Path:
    """Return a path on this disk: the path itself, or that of the copy of what a store holds.

    Args:
        path: a file or folder, or the address of a folder, or of one image, in a store.

    Raises:
        BackendError: the store's package is not installed, or the store cannot be reached.
        DataError: there is nothing, or a file there cannot be read.
    """
    if not is_remote(path):
        return Path(path)
    address = _address(path)
    system, root = _system(address)
    if _is_image(root):
        files = {"": _info(system, root, address)}
    else:
        files = {n: i for n, i in _files_below(system, root, address).items() if not _hidden(n)}
    if not files:
        raise DataError(f"{address}: holds no file; check the address.")
    protocol, rest = address.split("://", 1)
    target = _store_folder() / protocol / _inside(rest, address)
    _copy(system, root, address, files, target)
    return target


def on_disk(path: Path | None) -> None:
    """Refuse an address in a store where a command writes; DataError."""
    if path is not None and is_remote(path):
        raise DataError(
            f"{path}: is in a store, expected a path on this disk to write to; copy the result "
            "there afterwards."
        )


def local_arguments(arguments: Iterable[str]) -> list[str]:
    """Return a command's arguments with the copies of those that name a store."""
    return [str(local(word)) if is_remote(word) else word for word in arguments]


def shown(text: object) -> str:
    """Write a text with a store's addresses in the place of the copies' paths."""
    folder = re.escape(f"{_store_folder()}")
    return re.sub(rf"{folder}[/\\]([a-z][a-z0-9+.-]+)[/\\]", r"\1://", str(text))


def addresses_below(folder: str) -> list[str]:
    """Name the images below a folder of the disk or of a store, sorted; nothing is copied.

    Raises:
        BackendError: the store's package is not installed, or it cannot be reached.
        DataError: there is no image.
    """
    if is_remote(folder):
        address = _address(folder)
        system, root = _system(address)
        names = [n for n in _files_below(system, root, address) if not _hidden(n)]
        found = [f"{address}/{name}" for name in names if _is_image(name)]
    else:
        found = [str(path) for path in images_below(Path(folder)).images]
    if not found:
        raise DataError(f"{folder}: holds no image; check the path.")
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
        raise DataError(f"{path}: cannot be read ({one_line(error)}); check it.") from error
    content.name = path
    return content


def _address(path: str | Path) -> str:
    """Write a store's address as it was before `Path` took a slash from it."""
    match = _ADDRESS.fullmatch(str(path))
    assert match is not None
    return f"{match[1]}://{match[2].rstrip('/')}"


def _store_folder() -> Path:
    return cache_folder() / "stores"


def _system(address: str) -> tuple[Any, str]:
    protocol = address.partition("://")[0]
    try:
        import fsspec

        system, name = fsspec.core.url_to_fs(address)
    except (ImportError, ValueError) as error:
        install = _INSTALL.get(protocol, f"pip install fsspec, and its package for {protocol}://")
        raise BackendError(
            f"{address}: cannot be opened ({one_line(error)}); run {install}."
        ) from error
    return system, str(name).rstrip("/")


def _files_below(system: Any, root: str, address: str) -> dict[str, Mapping[str, Any]]:
    """Return what a store says of its files, by their path below the root."""
    found: dict[str, Mapping[str, Any]] = {}
    system.invalidate_cache()  # else a long process goes on with an old listing
    try:
        # By default a folder that cannot be listed is left out, and nothing said.
        for folder, _, files in system.walk(root, on_error="raise", detail=True):
            below = folder.rstrip("/")[len(root) :].lstrip("/")
            found |= {f"{below}/{name}".lstrip("/"): info for name, info in files.items() if name}
    except Exception as error:
        # Each store's library has errors of its own.
        raise BackendError(
            f"{address}: cannot be listed ({one_line(error)}); check the address and its "
            "credentials."
        ) from error
    return found


def _info(system: Any, name: str, address: str) -> Mapping[str, Any]:
    try:
        info: Mapping[str, Any] = system.info(name)
    except Exception as error:
        raise DataError(f"{address}: cannot be read ({one_line(error)}); check it.") from error
    return info


def _inside(name: str, address: str) -> PurePosixPath:
    """Return a store's name as a path that cannot lead out of a folder; DataError of others."""
    if any(part in ("", ".", "..") for part in name.split("/")):
        raise DataError(f"{address}: holds {name!r}, which is no name of a file; rename it there.")
    return PurePosixPath(name)


def _copy(
    system: Any, root: str, address: str, files: Mapping[str, Mapping[str, Any]], target: Path
) -> None:
    """Make a folder, or a file, the copy of what a store holds, and of nothing else."""
    key = cache_key("store", address)
    known: dict[str, list[str]] = json.loads(read_cache(key) or b"{}")
    remote = {name: f"{root}/{name}" if name else root for name in files}
    places = {name: target / _inside(name, address) if name else target for name in files}
    marks = {
        # A web server's page of a folder names its files and nothing else.
        name: _mark(info) or _mark(_info(system, remote[name], address))
        for name, info in files.items()
    }
    missing = [
        name
        for name, place in places.items()
        if not (marks[name] and known.get(name) == [*marks[name], *_stamp(place)])
    ]
    if missing:
        staging = partial_path(_made_folder(address) / key)
        try:
            with progress(address, len(missing), "files to copy") as on_files:
                for start in range(0, len(missing), AT_ONCE):
                    names = missing[start : start + AT_ONCE]
                    _get(system, {remote[name]: places[name] for name in names}, staging, address)
                    known |= {name: [*marks[name], *_stamp(places[name])] for name in names}
                    on_files(len(names))
        finally:
            write_cache(key, json.dumps({n: m for n, m in known.items() if n in files}).encode())
            shutil.rmtree(staging, ignore_errors=True)
    wanted = set(places.values())
    for path in target.rglob("*"):
        if path.is_file() and path not in wanted:
            path.unlink(missing_ok=True)


def _made_folder(address: str) -> Path:
    folder = _store_folder()
    try:
        cache_folder().mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise BackendError(
            f"{folder}: cannot keep the copy of {address} ({error.strerror}); name another folder "
            "by XDG_CACHE_HOME."
        ) from error
    return folder


def _get(system: Any, places: Mapping[str, Path], staging: Path, address: str) -> None:
    """Copy some files to their places; each is there whole or not at all."""
    partial = {name: staging / str(number) for number, name in enumerate(places)}
    staging.mkdir(parents=True, exist_ok=True)
    try:
        system.get(list(partial), [str(path) for path in partial.values()])
        for name, place in places.items():
            place.parent.mkdir(parents=True, exist_ok=True)
            partial[name].replace(place)
    except Exception as error:
        raise DataError(
            f"{address}: a file cannot be copied ({one_line(error)}); run the same again."
        ) from error


def _mark(info: Mapping[str, Any]) -> list[str]:
    """Return what tells a file's content from its former one; empty where the store has none."""
    found = [str(info[key]) for key in _MARKS if info.get(key)]
    return [*found, str(info.get("size"))] if found else []


def _stamp(place: Path) -> list[str]:
    """Return what tells a copy from one that another command, or a killed one, put there."""
    try:
        status = place.stat()
    except OSError:
        return []
    return [str(status.st_size), str(status.st_mtime_ns)]


def _hidden(name: str) -> bool:
    # Not those of which `_inside` warns.
    return any(is_ignored(part) for part in name.split("/") if part.strip("."))


def _is_image(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES
