"""The conda recipe asks for what pyproject.toml asks for."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
NAMES = {"torch": "pytorch"}
"""Projects that conda-forge has under another name."""
EXTRAS = ("train", "export", "openvino")


def conda(requirement: str) -> str:
    """Return "NAME >=VERSION", as conda writes a requirement."""
    name, bounds = re.fullmatch(r"([\w.-]+)(.*)", requirement).groups()  # type: ignore[union-attr]
    return f"{NAMES.get(name, name)} {bounds}"


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def recipe() -> Any:
    return yaml.safe_load((ROOT / "conda/recipe.yaml").read_text(encoding="utf-8"))


def test_requirements(project: dict[str, Any], recipe: Any) -> None:
    python = f"python {project['project']['requires-python']}"
    wanted = recipe["requirements"]
    assert wanted["run"] == [python, *sorted(map(conda, project["project"]["dependencies"]))]
    built_with = map(conda, project["build-system"]["requires"])
    assert wanted["host"] == [python, "pip", *built_with]


def test_constraints_are_the_extras(project: dict[str, Any], recipe: Any) -> None:
    extras = project["project"]["optional-dependencies"]
    texts = {text for extra in EXTRAS for text in extras[extra] if not text.startswith("stpm[")}
    assert recipe["requirements"]["run_constraints"] == sorted(map(conda, texts))


def test_what_else_is_said_twice(project: dict[str, Any], recipe: Any) -> None:
    version = (ROOT / "runtime/c/VERSION").read_text(encoding="utf-8").strip()
    assert str(recipe["context"]["version"]) == version
    scripts = [f"{name} = {call}" for name, call in project["project"]["scripts"].items()]
    assert recipe["build"]["python"]["entry_points"] == scripts
    assert recipe["about"]["summary"] == project["project"]["description"]
    assert recipe["about"]["license"] == project["project"]["license"]
