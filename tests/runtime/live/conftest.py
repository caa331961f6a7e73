"""The tiny run's bundle, opened, and its images."""

from __future__ import annotations

from pathlib import Path

import pytest

from stpm.runtime import Detector


@pytest.fixture(scope="session")
def detector(bundle_path: Path) -> Detector:
    return Detector(bundle_path, "onnxruntime", threads=1)


@pytest.fixture
def good(data_root: Path) -> list[Path]:
    return sorted((data_root / "weave/train/good").glob("*.png"))


@pytest.fixture
def bad(data_root: Path) -> list[Path]:
    return sorted((data_root / "weave/test/hole").glob("*.png"))
