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


@pytest.fixture(scope="session")
def with_plan(tmp_path_factory: pytest.TempPathFactory, weave: Path) -> Path:
    """The same bundle with a TensorRT plan that no TensorRT has made."""
    return _with_plan(weave, tmp_path_factory.mktemp("plan"))


@pytest.fixture(scope="session")
def stricter_with_plan(tmp_path_factory: pytest.TempPathFactory, stricter: Path) -> Path:
    """The stricter one with such a plan."""
    return _with_plan(stricter, tmp_path_factory.mktemp("stricter_plan"))


def _with_plan(bundle: Path, folder: Path) -> Path:
    source = Bundle(bundle)
    record = replace(
        source.manifest.engines["onnxruntime"],
        built_with={"tensorrt": "10.8.0", "device": "NVIDIA L4"},
        file="tensorrt.engine",
    )
    files = {name: source.read(name) for name in (MODEL, GOLDEN)} | {"tensorrt.engine": b"a plan"}
    manifest = replace(source.manifest, engines=source.manifest.engines | {"tensorrt": record})
    write_bundle(folder / "weave.stpm", manifest, files)
    return folder / "weave.stpm"
