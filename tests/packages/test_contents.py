"""What is packed: every folder of Python below the floors, and the licence."""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
FLOORS = ("runtime", "train", "export", "benchmarks", "fleet")
NOT_PACKED = ("runtime/c/", "benchmarks/cases/")
"""The sources of libstpm are data of stpm.runtime; pytest's cases stay in the repository."""


def folders() -> set[Path]:
    """Every folder with a file of Python that is a module of stpm."""
    return {
        path.parent.relative_to(ROOT)
        for floor in FLOORS
        for path in (ROOT / floor).rglob("*.py")
        if not path.relative_to(ROOT).as_posix().startswith(NOT_PACKED)
    }


def test_every_folder_of_python_is_packed() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    packed = settings["tool"]["setuptools"]["packages"]
    assert sorted(packed) == sorted(".".join(("stpm", *folder.parts)) for folder in folders())


def test_every_room_is_a_package() -> None:
    """import-linter does not look into folders without `__init__.py`."""
    rooms = [ROOT / folder for folder in folders() if len(folder.parts) > 1]
    assert [room for room in rooms if not (room / "__init__.py").is_file()] == []


def test_licence_of_libstpm_is_that_of_the_project() -> None:
    assert (ROOT / "runtime/c/LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
