"""Real images, weights and checkpoints, where the machine has them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REAL_DATA = Path(os.environ.get("STPM_REAL_DATA", "absent"))
"""A folder with `data/mvtec`, `weights` and `checkpoints`; the variable names it."""
needs_real_data = pytest.mark.skipif(
    not REAL_DATA.is_dir(), reason="STPM_REAL_DATA names no folder of real data"
)
