"""Writes a bundle as a model of OpenVINO Model Server: its folder, its entry in config.json."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from stpm.runtime.bundle.archive import MODEL, Bundle
from stpm.runtime.detector import calibration_of
from stpm.runtime.errors import DataError
from stpm.runtime.partial import partial_path
from stpm.runtime.serve.folders import check_name, next_version, write_files
from stpm.runtime.serve.options import check_graph_scores, model_name
from stpm.runtime.serve.verdict_graph import with_verdict

CONFIG = "config.json"
ENGINE = "openvino"
MODELS = "model_config_list"


def write_model(bundle: Bundle, repository: Path, name: str | None = None) -> Path:
    """Add a bundle to a repository of OpenVINO Model Server, whole or not at all.

    Args:
        bundle: to serve; its graph is hashed.
        repository: the folder of models and of config.json; made if it is missing.
        name: of the model; None takes the bundle's folder.

    Returns:
        The version's folder.

    Raises:
        BackendError: the bundle has no thresholds for OpenVINO.
        BundleError: the bundle is malformed.
        DataError: the name is none of a model, or config.json is none of the server's.
    """
    name = check_name(name or model_name(bundle))
    check_graph_scores(bundle)
    calibration = calibration_of(bundle, ENGINE)
    config = _with_entry(repository / CONFIG, name)
    model = repository / name
    version = str(next_version(model))
    graph = with_verdict(bundle.read(MODEL), calibration)
    absolute = repository.absolute()
    staging = partial_path(absolute.with_name(f"{absolute.name}.{name}"))
    try:
        write_files(staging / version, {MODEL: graph})
        write_files(staging, {CONFIG: (json.dumps(config, indent=2) + "\n").encode()})
        model.mkdir(parents=True, exist_ok=True)
        (staging / version).rename(model / version)
        (staging / CONFIG).replace(repository / CONFIG)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return model / version


def _with_entry(path: Path, name: str) -> dict[str, Any]:
    """Return the server's config with this model in it."""
    try:
        config = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {MODELS: []}
        others = [entry for entry in config[MODELS] if entry["config"]["name"] != name]
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(
            f"{path}: is not a config of OpenVINO Model Server ({error!r}), expected an "
            f"object with {MODELS}; choose another folder."
        ) from error
    entry = {
        "name": name,
        "base_path": name,
        "target_device": "CPU",
        "model_version_policy": {"all": {}},
        # Else OpenVINO computes in bf16 on processors that have it, scores included.
        "plugin_config": {"EXECUTION_MODE_HINT": "ACCURACY", "PERFORMANCE_HINT": "LATENCY"},
    }
    return config | {MODELS: [*others, {"config": entry}]}
