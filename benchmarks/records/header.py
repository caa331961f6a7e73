"""What every result file begins with."""

from __future__ import annotations

import hashlib
import shlex
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypedDict

from msgspec import Meta

from stpm.benchmarks.records.environment import Environment, environment
from stpm.runtime.bundle.archive import MODEL, Bundle

SCHEMA_VERSION = 1
NOT_EMPTY = Meta(min_length=1)
"""For lists of which a reader takes the first."""


class Header(TypedDict):
    """The beginning of a record; each kind adds `kind` and what was measured.

    Attributes:
        schema_version: `SCHEMA_VERSION`.
        created: in UTC, as ISO 8601.
        command: that made the file.
        models: SHA-256 of each checkpoint, or of the graph in each bundle, by file name.
        environment: hardware, system and versions.
    """

    schema_version: int
    created: str
    command: str
    models: dict[str, str]
    environment: Environment


def header(kind: str, models: Sequence[Path]) -> dict[str, Any]:
    """Return what a result file begins with.

    Args:
        kind: a key of `stpm.benchmarks.records.kinds.KINDS`.
        models: the checkpoints and bundles that were measured.
    """
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": kind,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join([*_program(), *sys.argv[1:]]),
        "models": {model.name: model_hash(model) for model in models},
        "environment": environment(),
    }


def _program() -> list[str]:
    """Return how this program was called: by its own name, or as a module."""
    spec = sys.modules["__main__"].__spec__
    if spec is None:
        return [Path(sys.argv[0]).name]
    return ["python", "-m", spec.name.removesuffix(".__main__")]


def model_hash(model: Path) -> str:
    """Return the sha256 of a checkpoint, or of the graph in a bundle."""
    if model.is_dir():
        return Bundle(model).manifest.files[MODEL].sha256
    with model.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
