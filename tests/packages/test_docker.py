"""The images are not built here; what they copy is all that the wheel is made of."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from stpm.runtime.errors import BackendError
from stpm.runtime.live.sources import SourceOptions, genicam

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("path", sorted((ROOT / "docker").iterdir()), ids=lambda path: path.name)
def test_every_package_is_copied(path: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    folders = set(project["tool"]["setuptools"]["package-dir"].values())
    copied = re.findall(r"^COPY (\w+) \1$", path.read_text(encoding="utf-8"), re.MULTILINE)
    assert set(copied) == folders


def test_a_station_has_what_its_cameras_ask_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(genicam.importlib, "import_module", absent)
    with pytest.raises(BackendError) as error:
        genicam.GenicamSource("", SourceOptions())
    asked = str(error.value).rpartition("apt-get install ")[2].rstrip(".").split()
    lines = (ROOT / "docker/live.Dockerfile").read_text(encoding="utf-8")
    assert len(asked) == 2
    assert set(asked) < set(lines.rpartition("apt-get install")[2].splitlines()[0].split())
