"""Bundles of students that start from the teacher's features: the same commands and engines."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from typer.testing import CliRunner

from stpm.export.cli import main as export_main
from stpm.export.graph import DeploymentGraph
from stpm.export.int8.quantize import quantize
from stpm.export.onnx import onnx_from_graph
from stpm.runtime import Detector
from stpm.runtime.backends import open_engine
from stpm.runtime.backends.torch_cuda.network import FusedNetwork
from stpm.runtime.batches import run_in_batches
from stpm.runtime.bundle.archive import InputContract
from stpm.runtime.bundle.parity import TOLERANCES, compare
from stpm.train.checkpoint import load_checkpoint
from stpm.train.cli import main as train_main
from stpm.train.datasets import list_images, read_images
from stpm.train.evaluate import score_files, torch_scorer


@pytest.fixture(scope="module", params=["conv1", "layer1"])
def trained(
    request: pytest.FixtureRequest,
    data_root: Path,
    teacher_file: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    out = tmp_path_factory.mktemp("shared") / "weave.pt"
    arguments = ["--good", data_root / "weave/train/good", "--share-to", request.param]
    arguments += ["--teacher-weights", teacher_file, "--input-size", 64, "--epochs", 1]
    arguments += ["--device", "cpu", "--precision", "fp32", "--out", out]
    result = CliRunner().invoke(train_main, list(map(str, arguments)))
    assert result.exit_code == 0, result.output
    return out


def test_a_bundle_gives_the_networks_scores(trained: Path, data_root: Path, tmp_path: Path) -> None:
    out = tmp_path / "weave.stpm"
    arguments = ["--ckpt", trained, "--out", out, "--calibrate", data_root / "weave/test/good"]
    arguments += ["--engine", "openvino", "--engine", "onnxruntime"]
    result = CliRunner().invoke(export_main, list(map(str, arguments)))
    assert result.exit_code == 0, result.output
    paths = list_images(data_root / "weave/test/hole")
    maps, scores = score_files(torch_scorer(load_checkpoint(trained).model()), paths)
    for engine in ("openvino", "onnxruntime"):
        results = Detector(out, engine).batch(paths)
        for made, expected_map, expected in zip(results, maps, scores, strict=True):
            assert made.score == pytest.approx(float(expected), rel=1e-4)
            peak = float(np.abs(expected_map).max())
            np.testing.assert_allclose(made.anomaly_map, expected_map, atol=1e-4 * peak)


@pytest.mark.parametrize("precision", TOLERANCES)
def test_every_precision_keeps_its_tolerance(
    precision: str, trained: Path, data_root: Path, tmp_path: Path
) -> None:
    model = load_checkpoint(trained).model()
    _, images = read_images(sorted((data_root / "weave/test").glob("*/*.png")), model.input_size)
    if precision == "int8":
        model = quantize(model, torch.from_numpy(images))
    path = tmp_path / "model.onnx"
    onnx_from_graph(DeploymentGraph(model, precision), path, (1, 2))
    with torch.no_grad():
        reference = [x.numpy() for x in model(torch.from_numpy(images))]
    engine = open_engine("openvino", path.read_bytes())
    contract = InputContract(model.input_size, (1, 2))
    parity = compare(*reference, *run_in_batches(engine, images, contract))
    assert parity.holds(TOLERANCES[precision]), parity


def test_shared_layers_stand_in_the_graph_once(trained: Path, tmp_path: Path) -> None:
    model = load_checkpoint(trained).model()
    path = tmp_path / "model.onnx"
    onnx_from_graph(DeploymentGraph(model), path, (1, 2))
    kinds = [node.op_type for node in onnx.load(path).graph.node]
    assert kinds.count("MaxPool") == 1


def test_torch_cuda_reads_it(trained: Path, tmp_path: Path) -> None:
    graph = DeploymentGraph(load_checkpoint(trained).model())
    path = tmp_path / "model.onnx"
    onnx_from_graph(graph, path, (1, 2))
    images = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    network = FusedNetwork(path.read_bytes(), torch.device("cpu"))
    for made, wished in zip(network.score(images), graph(images), strict=True):
        torch.testing.assert_close(made, wished, rtol=1e-4, atol=1e-4 * float(wished.max()))
