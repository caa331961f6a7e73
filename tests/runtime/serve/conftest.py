"""The tiny run's bundle as servers get it."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from stpm.runtime.bundle.archive import GOLDEN, MODEL, Bundle, write_bundle


@pytest.fixture(scope="session")
def weave(tmp_path_factory: pytest.TempPathFactory, bundle_path: Path) -> Path:
    """The shared bundle in a folder of its own, named weave.stpm."""
    path = tmp_path_factory.mktemp("served") / "weave.stpm"
    shutil.copytree(bundle_path, path)
    return path


@pytest.fixture(scope="session")
def stricter(tmp_path_factory: pytest.TempPathFactory, weave: Path) -> Path:
    """The same model with thresholds below every score: all is anomalous."""
    source = Bundle(weave)
    engines = {
        name: replace(
            record,
            calibration=replace(record.calibration, image_threshold=-1.0, pixel_threshold=-2.0),
        )
        for name, record in source.manifest.engines.items()
    }
    path = tmp_path_factory.mktemp("stricter") / "weave.stpm"
    files = {name: source.read(name) for name in (MODEL, GOLDEN)}
    write_bundle(path, replace(source.manifest, engines=engines), files)
    return path
