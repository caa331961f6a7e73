"""Bundles of the other methods: one pipeline, the same runtime, no special case."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from stpm.export.graph import DeploymentGraph
from stpm.export.onnx import onnx_from_graph
from stpm.export.options import ExportOptions
from stpm.export.pipeline import export_bundle
from stpm.export.precision import FP32_PREFIX, reduced_scoring_layers
from stpm.runtime import Detector
from stpm.runtime.backends import open_engine
from stpm.runtime.batches import run_in_batches
from stpm.runtime.bundle.archive import MODEL, Bundle, InputContract
from stpm.runtime.bundle.parity import TOLERANCES, compare
from stpm.train.checkpoint import load_checkpoint
from stpm.train.datasets import list_images, read_images
from stpm.train.evaluate import score_files, torch_scorer

PARITY = {"rd": 1e-5, "stad": 1e-4, "spade": 1e-5}
"""SPADE's distances must not lose the digits that products of long vectors share."""


@pytest.fixture(params=sorted(PARITY), scope="module")
def method(request: pytest.FixtureRequest) -> str:
    if request.param == "spade":
        pytest.importorskip("faiss", reason="the extra spade is not installed")
    return str(request.param)


@pytest.fixture(scope="module")
def path(method: str, request: pytest.FixtureRequest) -> Path:
    found: Path = request.getfixturevalue(f"{method}_path")
    return found


@pytest.fixture(scope="module")
def bundle(path: Path, data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    out = tmp_path_factory.mktemp("methods") / "weave.stpm"
    images = list_images(data_root / "weave/test/good")
    export_bundle(
        load_checkpoint(path),
        out,
        ExportOptions(batch=(1, 2), engines=("onnxruntime", "openvino")),
        verify=images,
        calibration=images,
        report=lambda _: None,
    )
    return Bundle(out)


def test_every_engine_gives_the_references_scores(
    bundle: Bundle, path: Path, data_root: Path, method: str
) -> None:
    assert bundle.manifest.method == method
    paths = list_images(data_root / "weave/test/hole")
    maps, scores = score_files(torch_scorer(load_checkpoint(path).model()), paths)
    for engine in ("onnxruntime", "openvino"):
        assert bundle.manifest.engines[engine].parity["map_difference"] < PARITY[method]
        results = Detector(bundle, engine).batch(paths)
        for result, expected_map, expected in zip(results, maps, scores, strict=True):
            assert result.score == pytest.approx(float(expected), rel=1e-4)
            peak = float(np.abs(expected_map).max())
            np.testing.assert_allclose(result.anomaly_map, expected_map, atol=1e-4 * peak)


@pytest.mark.parametrize(
    ("name", "precision"),  # ONNX Runtime refuses bf16 on the CPU, which STPM's test asserts
    [("openvino", p) for p in TOLERANCES] + [("onnxruntime", p) for p in ("fp32", "fp16")],
)
def test_stad_keeps_the_tolerances_of_stpm(
    name: str, precision: str, stad_path: Path, data_root: Path, tmp_path: Path
) -> None:
    model = load_checkpoint(stad_path).model()
    path = tmp_path / "model.onnx"
    onnx_from_graph(DeploymentGraph(model, precision), path, (1, 2))
    _, images = read_images(sorted((data_root / "weave/test").glob("*/*.png")), model.input_size)
    with torch.no_grad():
        reference = [x.numpy() for x in model(torch.from_numpy(images))]
    engine = open_engine(name, path.read_bytes())
    outputs = run_in_batches(engine, images, InputContract(model.input_size, (1, 2)))
    parity = compare(*reference, *outputs)
    assert parity.holds(TOLERANCES[precision]), parity
    assert reduced_scoring_layers(engine.layer_precisions()) == []


def test_what_scores_is_named_fp32(bundle: Bundle) -> None:
    graph = onnx.load_from_string(bundle.read(MODEL)).graph
    scoring = {n.op_type for n in graph.node if n.name.startswith(FP32_PREFIX)}
    networks = {n.op_type for n in graph.node if not n.name.startswith(FP32_PREFIX)}
    assert "Conv" in networks
    assert scoring.isdisjoint({"Relu", "LeakyRelu", "MaxPool"})
    assert "ReduceMax" in scoring or "TopK" in scoring
