"""Prints the lowest versions that pyproject.toml allows, for pip: python lowest.py [EXTRA]..."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))[
    "project"
]


def lowest(extras: list[str]) -> list[str]:
    """Return "NAME==VERSION" of what the base install and the extras name themselves.

    Args:
        extras: names of optional dependencies; one that names another brings it along.
    """
    texts = list(PROJECT["dependencies"])
    for extra in extras:
        texts += PROJECT["optional-dependencies"][extra]
    pins: list[str] = []
    for text in texts:
        own = re.fullmatch(r"stpm\[(.+)\]", text)
        pins += lowest(own[1].split(",")) if own else [re.sub(">=", "==", text)]
    return sorted(set(pins))


if __name__ == "__main__":
    print("\n".join(lowest(sys.argv[1:])))
