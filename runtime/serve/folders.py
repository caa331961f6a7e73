"""Folders of models, as every server has them: NAME/VERSION/."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from stpm.runtime.errors import DataError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def check_name(name: str) -> str:
    """Return a model's name; DataError where it is none that can be a folder."""
    if _NAME.fullmatch(name) is None:
        raise DataError(
            f"got the model name {name!r}, expected letters, digits, '.', '_' or '-'; choose one "
            "with --name."
        )
    return name


def next_version(model: Path) -> int:
    """Return the number after those of a model's folder, from 1."""
    versions = [int(p.name) for p in model.glob("*") if p.is_dir() and p.name.isdecimal()]
    return max(versions, default=0) + 1


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files into a folder; names may lead into folders of it."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
