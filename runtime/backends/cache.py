"""Files that can be made again: in the user's cache folder, whole or not at all."""

from __future__ import annotations

import hashlib
import os
import sys
from contextlib import suppress
from pathlib import Path

from stpm.runtime.partial import partial_path

DIGEST_BYTES = hashlib.sha256().digest_size


def cache_folder() -> Path:
    """Return the folder: `stpm` below $XDG_CACHE_HOME, ~/.cache or %LOCALAPPDATA%."""
    if sys.platform == "win32":
        root = os.environ.get("LOCALAPPDATA") or str(Path.home() / "AppData/Local")
    else:
        root = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(root) / "stpm"


def cache_key(*parts: object) -> str:
    """Return a file name for all that decides a file's content."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def read_cache(name: str) -> bytes | None:
    """Return what was written under a name; None if missing, damaged or writable by others."""
    path = cache_folder() / name
    try:
        if not (_is_private(path.parent) and _is_private(path)):
            return None
        content = path.read_bytes()
    except OSError:
        return None
    digest, content = content[:DIGEST_BYTES], content[DIGEST_BYTES:]
    return content if hashlib.sha256(content).digest() == digest else None


def write_cache(name: str, content: bytes) -> None:
    """Keep content under a name; where the folder cannot be written, nothing is kept."""
    folder = cache_folder()
    partial = partial_path(folder / name)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(hashlib.sha256(content).digest() + content)
        partial.replace(folder / name)
    except OSError:
        with suppress(OSError):
            partial.unlink()


def _is_private(path: Path) -> bool:
    """Whether nobody else can write here: engines are executable code."""
    if sys.platform == "win32":
        return True  # below a profile that only its owner may write
    status = path.stat()
    return status.st_uid == os.getuid() and not status.st_mode & 0o022
