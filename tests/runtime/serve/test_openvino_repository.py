"""`stpm-serve openvino`: what OpenVINO Model Server reads, and what OpenVINO makes of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from stpm.runtime.bundle.archive import MODEL, Bundle
from stpm.runtime.detector import Detector

pytest.importorskip("onnx")
from stpm.runtime.serve.cli import main

SCHEMA = {
    "name": str,
    "base_path": str,
    "target_device": str,
    "model_version_policy": dict,
    "plugin_config": dict,
}
"""Of a model's config, in the server's src/schema.cpp."""


def run(*words: object, code: int = 0) -> str:
    result = CliRunner().invoke(main, ["openvino", *map(str, words)])
    assert result.exit_code == code, result.output
    return result.output


def test_versions_and_models_stand_in_one_config(weave: Path, tmp_path: Path) -> None:
    models = tmp_path / "models"
    for name, version in (("weave", 1), ("weave", 2), ("other", 1)):
        assert run(weave, models, "--name", name).strip() == str(models / name / str(version))
    config = json.loads((models / "config.json").read_text())
    entries = [entry["config"] for entry in config["model_config_list"]]
    assert [entry["name"] for entry in entries] == ["weave", "other"]
    for entry in entries:
        assert {key: type(value) for key, value in entry.items()} == SCHEMA
        assert (models / entry["base_path"] / "1" / MODEL).is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["models"]


def test_openvino_gives_the_verdict_of_the_runtime(weave: Path, tmp_path: Path) -> None:
    ov = pytest.importorskip("openvino")
    run(weave, tmp_path)
    (entry,) = json.loads((tmp_path / "config.json").read_text())["model_config_list"]
    detector = Detector(weave, "openvino")
    images = Bundle(weave).golden().images
    compiled = ov.Core().compile_model(
        str(tmp_path / "weave/1" / MODEL), "CPU", entry["config"]["plugin_config"]
    )
    found = {key.get_any_name(): value for key, value in compiled(images).items()}
    results = detector.batch(list(images))
    tolerance = detector.bundle.manifest.tolerance
    np.testing.assert_allclose(
        found["pred_score"], [[result.score] for result in results], rtol=tolerance
    )
    assert found["is_anomalous"].tolist() == [[result.is_anomalous] for result in results]
    assert found["anomaly_map"].shape == (len(images), 64, 64)


def test_what_is_no_config_is_left_alone(weave: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("[]")
    assert "not a config of OpenVINO Model Server" in run(weave, tmp_path, code=1)
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]
