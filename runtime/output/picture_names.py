"""Names of the pictures that are saved of images."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

MAX_BYTES = 200
"""Longest start of a name: file systems take 255, its end and a temporary name need up to 40."""


def picture_stems(paths: Sequence[Path]) -> dict[Path, Path]:
    """Name each image's pictures: its path below the images' common folder, without suffix.

    Where two files differ in the suffix alone, it stays in the name; no two names are equal. A name
    that would be too long with `_heatmap.png` is cut, and ends in a hash.
    """
    if not paths:
        return {}
    # With "..", a name would lead out of the folder for the pictures.
    whole = [Path(os.path.normpath(path.absolute())) for path in paths]
    root = Path(os.path.commonpath([path.parent for path in whole]))
    names = [path.relative_to(root) for path in whole]
    bare = {name: name.with_suffix("") for name in names}
    count = Counter([*bare.values(), *bare])
    return {
        path: _shortened(bare[name] if count[bare[name]] == 1 else name)
        for path, name in zip(paths, names, strict=True)
    }


def _shortened(stem: Path) -> Path:
    name = os.fsencode(stem.name)
    if len(name) <= MAX_BYTES:
        return stem
    digest = hashlib.sha256(name).hexdigest()[:12]
    start = stem.name
    while len(os.fsencode(start)) + 1 + len(digest) > MAX_BYTES:
        start = start[:-1]
    return stem.with_name(f"{start}_{digest}")
