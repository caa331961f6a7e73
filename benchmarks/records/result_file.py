"""Result files: JSON with one header, written whole or not at all."""

from __future__ import annotations

import hashlib
import json
import shlex
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from stpm.benchmarks.records.environment import environment
from stpm.runtime.bundle import MODEL, Bundle
from stpm.runtime.errors import DataError
from stpm.runtime.partial import partial_path

SCHEMA_VERSION = 1
KINDS = ("accuracy", "latency", "peers")


def check_out(path: Path | None) -> None:
    """Refuse a file that could not be written, before any work.

    Raises:
        DataError: its folder is missing.
    """
    if path is not None and not path.absolute().parent.is_dir():
        raise DataError(f"{path.parent}: there is no such folder; create it first.")


def header(kind: str, models: list[Path]) -> dict[str, Any]:
    """Return what every result file begins with.

    Args:
        kind: one of `KINDS`.
        models: the checkpoints and bundles that were measured.
    """
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": kind,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "models": {model.name: model_hash(model) for model in models},
        "environment": environment(),
    }


def model_hash(model: Path) -> str:
    """Return the sha256 of a checkpoint, or of the graph in a bundle."""
    if model.is_dir():
        return Bundle(model).manifest.files[MODEL].sha256
    with model.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_result(path: Path, content: dict[str, Any]) -> None:
    """Write a result file in one step."""
    write_whole(path, json.dumps(content, indent=1) + "\n")


def write_whole(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old one or the whole new one."""
    partial = partial_path(path)
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def read_result(path: Path) -> dict[str, Any]:
    """Read a result file.

    Raises:
        DataError: it is missing, no result file, or of an unknown version or kind.
    """
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check the path.") from error
    except ValueError as error:
        raise DataError(f"{path}: is not JSON ({error}); expected what --out wrote.") from error
    found = content if isinstance(content, dict) else {}
    version, kind = found.get("schema_version"), found.get("kind")
    if version != SCHEMA_VERSION or kind not in KINDS:
        raise DataError(
            f"{path}: got a file of kind {kind!r} and version {version!r}, expected "
            f"{', '.join(KINDS)} of version {SCHEMA_VERSION}; write it again with stpm-bench."
        )
    return found
