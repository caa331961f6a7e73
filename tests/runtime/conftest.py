"""Bundles of a few bytes for tests of reading and writing, and the tiny run's graph."""

from __future__ import annotations

from pathlib import Path

import pytest
from bundles import FILES, WISHED

from stpm.runtime.bundle.archive import MODEL, write_bundle


@pytest.fixture
def part(tmp_path: Path) -> Path:
    """A small bundle whose graph no engine can run."""
    path = tmp_path / "part.stpm"
    write_bundle(path, WISHED, FILES)
    return path


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Like `part`, for tests that write the changed file anew for each example."""
    path = tmp_path_factory.mktemp("scratch") / "part.stpm"
    write_bundle(path, WISHED, FILES)
    return path


@pytest.fixture(scope="module")
def model(bundle_path: Path) -> bytes:
    """The tiny run's ONNX graph."""
    return (bundle_path / MODEL).read_bytes()
