"""A plugin of pytest: tests/runtime without torch, on the bundle that make_bundle.py wrote.

READY_BUNDLE=DIR/part.stpm pytest -p ready_bundle --confcutdir tests/runtime tests/runtime/...
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def bundle_path() -> Path:
    """Stands for the fixture of tests/conftest.py, which trains and exports."""
    return Path(os.environ["READY_BUNDLE"])


@pytest.fixture(scope="session")
def data_root() -> Path:
    """Skip what also needs the images of tests/conftest.py."""
    pytest.skip("no data set beside the bundle")


@pytest.fixture(scope="session")
def checkpoint_path() -> Path:
    """Skip what also needs the checkpoint of tests/conftest.py."""
    pytest.skip("no checkpoint beside the bundle")
