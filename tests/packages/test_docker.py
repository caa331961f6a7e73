"""The images are not built here; what they copy is all that the wheel is made of."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("path", sorted((ROOT / "docker").iterdir()), ids=lambda path: path.name)
def test_every_package_is_copied(path: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    folders = set(project["tool"]["setuptools"]["package-dir"].values())
    copied = re.findall(r"^COPY (\w+) \1$", path.read_text(encoding="utf-8"), re.MULTILINE)
    assert set(copied) == folders
