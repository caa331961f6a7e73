"""Find images, the same in every command: which files count, what is ignored, where links lead."""

from __future__ import annotations

import codecs
import glob
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

from stpm.runtime.errors import DataError
from stpm.runtime.images.preprocess import IMAGE_SUFFIXES
from stpm.runtime.output.console import note

IGNORED_NAMES = frozenset(
    {
        *("__macosx", "thumbs.db", "desktop.ini", "lost+found", "system volume information"),
        *("@eadir", "@recycle", "@__thumb", "#recycle", "#snapshot", "$recycle.bin"),
    }
)
"""What systems leave beside the user's files, in lower case; names with a dot in front as well."""


@dataclass
class Found:
    """Images, and how many other files were left out, by suffix."""

    images: list[Path] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)

    def add(self, paths: Iterable[Path]) -> None:
        """Sort files into the two."""
        for path in paths:
            if path.suffix.lower() in IMAGE_SUFFIXES:
                self.images.append(path)
            else:
                self.left_out[path.suffix.lower() or "without suffix"] += 1


def counts(left_out: Counter[str]) -> str:
    """Write "3 .txt, 1 .heic"."""
    return ", ".join(f"{count} {kind}" for kind, count in sorted(left_out.items()))


def is_ignored(name: str) -> bool:
    """Whether a file or folder of this name is the system's and no user's."""
    return name.startswith(".") or name.lower() in IGNORED_NAMES


def folders_in(folder: Path) -> list[Path]:
    """List the folders directly in a folder, also linked ones, sorted by name."""
    return [path for path in _entries(folder) if path.is_dir()]


def list_images(folder: Path) -> list[Path]:
    """List the images directly in a folder, sorted by name, and say on stderr what is left out.

    Raises:
        DataError: the folder is missing or holds no image.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: there is no such folder; check the path.")
    found = Found()
    below = [path.name for path in folders_in(folder)]
    found.add(path for path in _entries(folder) if not path.is_dir())
    parts = [counts(found.left_out)] if found.left_out else []
    if below:
        parts.append(
            f"the contents of its folders ({', '.join(below[:5])}{', …' if below[5:] else ''})"
        )
    left_out = " and ".join(parts)
    if not found.images:
        expected = ", ".join(sorted(IMAGE_SUFFIXES))
        beside = f"; left out: {left_out}" if left_out else ""
        raise DataError(
            f"{folder}: contains no images; expected files ending in {expected}{beside}."
        )
    if left_out:
        note(f"{folder}: left out: {left_out}")
    return found.images


def images_below(root: Path, *, without: Path | None = None) -> Found:
    """Find the images in a folder and below, sorted by path, each folder once.

    Args:
        root: where to look. Linked folders are followed.
        without: a folder to leave out with all below it.
    """
    found = Found()
    for folder in _folders_below(root, without):
        found.add(path for path in _entries(folder) if not path.is_dir())
    found.images.sort()
    return found


def expand_glob(pattern: str, *, without: Path | None = None) -> list[Path]:
    """Find the files that match a pattern, sorted by path; `**` is any number of folders.

    Args:
        pattern: as of a shell. What it names without a wildcard is never ignored.
        without: see `images_below`.
    """
    path = Path(pattern)
    start = Path(path.anchor)
    parts = path.relative_to(start).parts if path.anchor else path.parts
    return sorted({p for p in _matches(start, parts, without) if not p.is_dir()})


def read_list(content: bytes) -> list[Path]:
    """Read paths, one a line, in the system's encoding of names, or by a mark in UTF-8 or UTF-16.

    Raises:
        DataError: the text is in another encoding.
    """
    try:
        if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            text = content.decode("utf-16")
        else:
            text = os.fsdecode(content.removeprefix(codecs.BOM_UTF8))
    except UnicodeDecodeError as error:
        raise DataError(f"the list of paths cannot be read ({error}); save it as UTF-8.") from error
    if "\0" in text:
        raise DataError("the list of paths contains zero bytes; save it as UTF-8.")
    return [Path(line) for line in map(str.strip, text.split("\n")) if line]


def find_images(arguments: list[str], save: Path | None = None) -> Found:
    """Expand files, folders (recursively), globs and - (paths on standard input), in order.

    Args:
        arguments: what the command was given.
        save: the folder for pictures, where nothing is searched.

    Raises:
        DataError: a folder, a pattern or standard input names no image.
    """
    every = Found()
    for argument in arguments:
        if argument == "-":
            found = Found(read_list(sys.stdin.buffer.read()))
        elif Path(argument).is_dir():
            found = images_below(Path(argument), without=save)
        elif glob.has_magic(argument) and not Path(argument).exists():
            found = Found(expand_glob(argument, without=save))
        else:
            found = Found([Path(argument)])
        if not found.images:
            raise DataError(_nothing_found(argument, found, save))
        every.images += found.images
        every.left_out += found.left_out
    return every


def _nothing_found(argument: str, found: Found, save: Path | None) -> str:
    beside = f" (left out: {counts(found.left_out)})" if found.left_out else ""
    beside += " outside the folder of --save" if save is not None and save.exists() else ""
    return f"{argument}: matches no image{beside}; check the path."


def _matches(folder: Path, parts: tuple[str, ...], without: Path | None) -> Iterator[Path]:
    if not parts:
        yield folder
        return
    first, *rest = parts
    if first == "**":
        for below in _folders_below(folder, without):
            # At its end it also stands for the files.
            yield from _matches(below, tuple(rest) or ("*",), without)
    elif not glob.has_magic(first):
        if os.path.lexists(folder / first):
            yield from _matches(folder / first, tuple(rest), without)
    elif folder.is_dir() and not _is_same(folder, without):
        for path in _entries(folder, hidden=first.startswith(".")):
            if fnmatch(path.name, first):
                yield from _matches(path, tuple(rest), without)


def _entries(folder: Path, *, hidden: bool = False) -> list[Path]:
    return sorted(path for path in folder.iterdir() if hidden or not is_ignored(path.name))


def _folders_below(root: Path, without: Path | None) -> Iterator[Path]:
    """Walk a folder's tree first, then what its links lead to and is not in it."""
    seen: set[tuple[int, int]] = set()
    links = [root]
    while links:
        pending = [links.pop(0)]
        while pending:
            folder = pending.pop()
            identity = folder.stat()
            key = (identity.st_dev, identity.st_ino)
            if key in seen or _is_same(folder, without):
                continue
            seen.add(key)
            yield folder
            below = folders_in(folder)
            links += [path for path in below if path.is_symlink()]
            pending += [path for path in reversed(below) if not path.is_symlink()]


def _is_same(folder: Path, other: Path | None) -> bool:
    return other is not None and other.exists() and folder.samefile(other)
