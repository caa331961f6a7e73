"""What pyproject.toml packs: every folder of Python below the four floors."""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
FLOORS = ("runtime", "train", "export", "benchmarks")
NOT_PACKED = ("runtime/c/", "benchmarks/cases/")
"""The examples of libstpm are data of stpm.runtime; pytest's cases stay in the repository."""


def test_every_folder_of_python_is_packed() -> None:
    folders = {
        path.parent.relative_to(ROOT)
        for floor in FLOORS
        for path in (ROOT / floor).rglob("*.py")
        if not path.relative_to(ROOT).as_posix().startswith(NOT_PACKED)
    }
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    packed = settings["tool"]["setuptools"]["packages"]
    assert sorted(packed) == sorted(".".join(("stpm", *folder.parts)) for folder in folders)
