"""Writes a bundle as a model of Triton's repository: a folder, its config and a version's files."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from stpm.runtime.backends import ENGINES
from stpm.runtime.bundle.archive import MANIFEST, MODEL, Bundle
from stpm.runtime.detector import calibration_of
from stpm.runtime.errors import BackendError, DataError
from stpm.runtime.partial import partial_path
from stpm.runtime.serve.folders import check_name, next_version, write_files
from stpm.runtime.serve.options import (
    BUNDLE,
    ONNX_ENGINES,
    PLAN_ENGINE,
    TritonBackend,
    TritonOptions,
    check_graph_scores,
    check_whole,
    model_name,
)
from stpm.runtime.serve.triton_config import (
    WARMUP,
    ServedModel,
    config_from_text,
    config_text,
    interface,
    model_config,
    warmup_files,
)
from stpm.runtime.serve.triton_ensemble import ensemble_models, part_names
from stpm.runtime.serve.verdict_graph import with_verdict

CONFIG = "config.pbtxt"
LAUNCHER = '''"""Written by stpm-serve: runs the bundle beside this file with stpm."""

import os
import site
import sys

# Triton's Python leaves PYTHONPATH out. Its folders come before the installed packages.
known = list(sys.path)
for folder in filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep)):
    site.addsitedir(folder)
sys.path[:] = [*(path for path in sys.path if path not in known), *known]

from stpm.runtime.serve.triton_model import TritonPythonModel

__all__ = ["TritonPythonModel"]
'''


def write_model(
    bundle: Bundle, repository: Path, options: TritonOptions, name: str | None = None
) -> Path:
    """Add a bundle to a model repository, whole or not at all.

    A model that is there gets a further version beside the ones it has. Of a plan's three models
    the one that clients ask comes last.

    Args:
        bundle: to serve; all its files are hashed.
        repository: the folder of models; made if it is missing.
        options: how it is served.
        name: of the model; None takes the bundle's folder.

    Returns:
        The version's folder.

    Raises:
        BackendError: the bundle has no thresholds for the engine.
        BundleError: the bundle is malformed, or its batches are none of Triton's.
        DataError: the name is none of a model, or the repository has something else there.
    """
    name = check_name(name or model_name(bundle))
    options = with_engine(bundle, options)
    is_plan = options.backend is TritonBackend.TENSORRT
    parts = [*part_names(name), name] if is_plan else [name]
    version = max(next_version(repository / part) for part in parts)
    models = served_models(bundle, name, version, options)
    for model in models:
        if (repository / model.config.name).exists():
            _join(model.config, repository / model.config.name)
    # Beside the repository: Triton takes every folder in it for a model.
    staging = partial_path(repository.absolute().with_name(f"{repository.absolute().name}.{name}"))
    try:
        for model in models:
            folder = staging / model.config.name
            write_files(folder / str(version), model.files)
            write_files(folder / WARMUP, model.warmup)
            (folder / CONFIG).write_text(config_text(model.config), encoding="utf-8")
        repository.mkdir(parents=True, exist_ok=True)
        for part in parts:
            _publish(staging / part, repository / part, version)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return repository / name / str(version)


def with_engine(bundle: Bundle, options: TritonOptions) -> TritonOptions:
    """Fill in the engine whose thresholds are served, and check that the bundle has them."""
    check_whole(bundle)
    if options.backend is TritonBackend.PYTHON:
        if options.engine is not None:
            calibration_of(bundle, options.engine)
        return options
    check_graph_scores(bundle)
    fitting = (PLAN_ENGINE,) if options.backend is TritonBackend.TENSORRT else ONNX_ENGINES
    engine = options.engine or fitting[0]
    if engine not in fitting:
        known = f"one of {', '.join(fitting)}" if engine in ENGINES else "a known engine"
        raise BackendError(
            f"got --engine {engine} for Triton's {options.backend} backend, expected {known}; use "
            "--backend python, which runs every engine."
        )
    if options.backend is TritonBackend.TENSORRT:
        _check_plan(bundle)
    calibration_of(bundle, engine)
    return replace(options, engine=engine)


def _check_plan(bundle: Bundle) -> None:
    record = bundle.manifest.engines.get(PLAN_ENGINE)
    if record is None or record.file is None:
        raise BackendError(
            f"{bundle.path}: brings no TensorRT plan, only {', '.join(bundle.manifest.engines)}; "
            "export it with --engine tensorrt on the server's GPU and TensorRT, or leave out "
            "--backend tensorrt."
        )


def served_models(
    bundle: Bundle, name: str, version: int, options: TritonOptions
) -> list[ServedModel]:
    """Return what is written into the repository for a bundle."""
    if options.backend is TritonBackend.TENSORRT:
        return ensemble_models(bundle, name, version, options)
    config = model_config(bundle, name, version, options)
    return [ServedModel(config, version_files(bundle, options), warmup_files(bundle))]


def version_files(bundle: Bundle, options: TritonOptions) -> Mapping[str, bytes]:
    """Return the content of a version's folder by name."""
    if options.backend is TritonBackend.ONNXRUNTIME:
        assert options.engine is not None
        calibration = bundle.manifest.engines[options.engine].calibration
        return {MODEL: with_verdict(bundle.read(MODEL), calibration)}
    files = {f"{BUNDLE}/{name}": bundle.read(name) for name in bundle.manifest.files}
    manifest = {f"{BUNDLE}/{MANIFEST}": bundle.manifest.to_json().encode()}
    return files | manifest | {"model.py": LAUNCHER.encode()}


def _join(config: Any, model: Path) -> None:
    """Hold a config against the one of the versions before, and take over their parameters."""
    try:
        former = config_from_text((model / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            f"{model}: exists but has no readable {CONFIG} ({error}); remove it, or choose "
            "another --name."
        ) from error
    if interface(former) != interface(config):
        raise DataError(
            f"{model}: its versions have another input, output, batch or backend, but Triton "
            "has one config for all versions; choose another --name, or serve with the same "
            "options."
        )
    for key, value in former.parameters.items():
        config.parameters[key].string_value = value.string_value


def _publish(staging: Path, model: Path, version: int) -> None:
    """Move what was written to its place; a reader sees the model before or after."""
    if not model.exists():
        staging.rename(model)
        return
    for file in (staging / WARMUP).glob("*"):
        (model / WARMUP).mkdir(exist_ok=True)
        file.replace(model / WARMUP / file.name)
    (staging / str(version)).rename(model / str(version))
    (staging / CONFIG).replace(model / CONFIG)
