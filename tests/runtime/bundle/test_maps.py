"""Maps in memory and in a file are the same, and so are the thresholds read off them."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest

from stpm.runtime.bundle.calibration import calibrate
from stpm.runtime.bundle.maps import MapStore
from stpm.runtime.errors import DataError


def store_of(maps: np.ndarray, most_in_memory: int) -> MapStore:
    store = MapStore(most_in_memory)
    for start in range(0, len(maps), 4):
        store.append(maps[start : start + 4])
    return store


@pytest.mark.parametrize("most_in_memory", [1, 1 << 20])
def test_thresholds_from_kept_maps_are_those_from_memory(most_in_memory: int) -> None:
    maps = np.random.default_rng(1).gamma(2, size=(21, 30, 40)).astype(np.float32)
    store = store_of(maps, most_in_memory)
    assert (len(store), store.shape) == (21, maps.shape)
    for _ in range(2):
        np.testing.assert_array_equal(np.stack(list(store)), maps)
    scores = maps.max(axis=(1, 2))
    found = calibrate(scores, store, 0.1)
    assert found == calibrate(scores, maps, 0.1)
    # 22 images at 10 %: what 1.2 of them have above it, and the next value is the threshold.
    assert found.pixel_threshold == np.sort(maps, axis=None)[::-1][int(1.2 * 30 * 40)]


def test_no_room_for_the_file_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "absent"))
    with pytest.raises(DataError, match=r"the maps of 3 images cannot be kept in .* TMPDIR"):
        MapStore(1).append(np.zeros((3, 4, 5), np.float32))
