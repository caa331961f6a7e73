"""Graphs as torch-cuda reads and fuses them, on the processor with torch's own functions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from stpm.export.graph import DeploymentGraph
from stpm.export.onnx import onnx_from_graph
from stpm.export.tiles import TileGraph
from stpm.runtime import BackendError
from stpm.runtime.backends import EngineSource
from stpm.runtime.backends.torch_cuda import check_graph, load
from stpm.runtime.backends.torch_cuda.network import FusedNetwork
from stpm.runtime.backends.torch_cuda.onnx_graph import fx_from_onnx
from stpm.train.backbones import LEVELS, pyramid
from stpm.train.checkpoint import load_checkpoint
from stpm.train.methods import Network
from stpm.train.methods.stpm.network import ModelConfig, Stpm

CPU = torch.device("cpu")
RESNET18 = {"_conv_relu": 14, "_conv_add_relu": 12, "conv": 4, "max_pool": 2}
"""Teacher and student: 2 stems, 2 x 6 blocks of two convolutions, 2 x 2 projections."""
SCORING = {"normalise": 1, "unit_distance": 3, "upsampled_product": 1, "getitem": 2}


def stpm(backbone: str, size: tuple[int, int] = (64, 96)) -> Stpm:
    levels = LEVELS[:3] if backbone != "squeezenet1_1" else LEVELS[:2]
    config = ModelConfig(backbone=backbone, levels=levels, input_size=size)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        network = Stpm(config, pyramid(backbone, levels))
        return network.eval()


def written(graph: DeploymentGraph, folder: Path, batch: tuple[int, int] = (1, 4)) -> bytes:
    path = folder / "model.onnx"
    onnx_from_graph(graph, path, batch)
    return path.read_bytes()


def images(graph: DeploymentGraph, count: int) -> torch.Tensor:
    shape = (count, *graph.input_size, graph.channels)
    return torch.from_numpy(np.random.default_rng().integers(0, 256, shape, np.uint8))


def assert_same(network: FusedNetwork, graph: DeploymentGraph, count: int, limit: float) -> None:
    pixels = images(graph, count)
    with torch.no_grad():
        expected = graph(pixels)
    for made, wished in zip(network.score(pixels), expected, strict=True):
        assert made.shape == wished.shape
        assert made.dtype == torch.float32
        assert float((made - wished).abs().max()) <= limit * float(wished.abs().max())


def operations_of(network: FusedNetwork) -> dict[str, int]:
    names = [step.node.target.__name__ for step in network.schedule.steps]
    return {name: names.count(name) for name in names}


@pytest.mark.parametrize(("precision", "limit"), [("fp32", 1e-5), ("fp16", 1e-2), ("bf16", 1e-1)])
def test_a_graph_is_fused_and_scores_the_same(precision: str, limit: float, tmp_path: Path) -> None:
    graph = DeploymentGraph(stpm("resnet18"), precision)
    network = FusedNetwork(written(graph, tmp_path), CPU)
    assert operations_of(network) == RESNET18 | SCORING
    assert (network.image_shape, network.map_size) == ((64, 96, 3), (64, 96))
    for count in (1, 3):
        assert_same(network, graph, count, limit)


@pytest.mark.parametrize(
    "backbone", ["resnet50", "squeezenet1_1", "densenet121", "efficientnet_lite0"]
)
def test_every_backbone_scores_the_same(backbone: str, tmp_path: Path) -> None:
    graph = DeploymentGraph(stpm(backbone, (64, 64)))
    network = FusedNetwork(written(graph, tmp_path), CPU)
    found = operations_of(network)
    assert found["upsampled_product"] == 1
    # EfficientNet's first convolution is padded on two sides alone, and stays as it is.
    assert ("normalise" in found) == (backbone != "efficientnet_lite0")
    if backbone in ("resnet50", "squeezenet1_1"):
        assert "relu" not in found, "each one follows a convolution"
    assert_same(network, graph, 2, 1e-4)


@pytest.mark.parametrize("size", [(61, 75), (64, 64)])
def test_odd_sizes_and_a_camera_that_is_resized_inside(
    size: tuple[int, int], tmp_path: Path
) -> None:
    graph = DeploymentGraph(stpm("resnet18", size), camera_size=(100, 90))
    network = FusedNetwork(written(graph, tmp_path), CPU)
    assert network.image_shape == (100, 90, 3)
    assert operations_of(network)["normalise"] == 1
    assert_same(network, graph, 2, 1e-5)


def test_a_graph_of_tiles(tmp_path: Path) -> None:
    graph = TileGraph(stpm("resnet18", (96, 128)))
    network = FusedNetwork(written(graph, tmp_path), CPU)
    assert operations_of(network)["normalise"] == 1
    assert_same(network, graph, 2, 1e-5)


@pytest.mark.parametrize("method", ["stad", "rd"])
def test_other_methods_run(method: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    graph = DeploymentGraph(load_checkpoint(request.getfixturevalue(f"{method}_path")).model())
    assert_same(FusedNetwork(written(graph, tmp_path), CPU), graph, 2, 1e-5)


def test_a_score_of_the_highest_pixels(tmp_path: Path) -> None:
    config = ModelConfig(input_size=(64, 96), score="top1%")
    network = Stpm(config, pyramid("resnet18", config.levels)).eval()
    graph = DeploymentGraph(network)
    fused = FusedNetwork(written(graph, tmp_path), CPU)
    assert operations_of(fused)["highest"] == 1
    assert_same(fused, graph, 2, 1e-5)


def test_what_the_engine_does_not_know_is_refused_in_one_sentence(
    spade_path: Path, tmp_path: Path
) -> None:
    spade: Network = load_checkpoint(spade_path).model()
    with pytest.raises(BackendError, match="torch-cuda supports only TopK with the highest values"):
        check_graph(written(DeploymentGraph(spade), tmp_path))
    image = helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 4, 4, 3])
    graph = helper.make_graph([helper.make_node("Erf", ["images"], ["map"])], "g", [image], [])
    with pytest.raises(
        BackendError, match="does not support the ONNX operator Erf, which this graph"
    ):
        check_graph(helper.make_model(graph).SerializeToString())
    with pytest.raises(BackendError, match="cannot be read as ONNX"):
        check_graph(b"no graph")


def test_a_product_that_another_node_reads_is_not_taken_away(tmp_path: Path) -> None:
    """A ReLU's convolution is fused only when nobody else needs what it gives."""
    weight = np.random.default_rng(0).normal(size=(3, 3, 1, 1)).astype(np.float32)
    nodes = [
        helper.make_node("Cast", ["images"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["pixels"], ["x"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["x", "w", "b"], ["y"], kernel_shape=[1, 1]),
        helper.make_node("Relu", ["y"], ["z"]),
        helper.make_node("Add", ["y", "z"], ["map"]),
    ]
    values = {"w": weight, "b": np.ones(3, np.float32)}
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, [1, 4, 4, 3])],
        [helper.make_tensor_value_info("map", TensorProto.FLOAT, [1, 3, 4, 4])],
        [onnx.numpy_helper.from_array(value, name) for name, value in values.items()],
    )
    content = helper.make_model(graph).SerializeToString()
    module, _, _ = fx_from_onnx(content)
    pixels = torch.randint(256, (1, 4, 4, 3), dtype=torch.uint8)
    y = torch.einsum("oi,nyxi->noyx", torch.from_numpy(weight[:, :, 0, 0]), pixels.float()) + 1
    limit = 1e-6 * float(y.abs().max())
    for (made,) in (module(pixels), FusedNetwork(content, CPU).schedule.run(pixels)):
        torch.testing.assert_close(made, y + y.relu(), rtol=0, atol=limit)


def test_without_a_gpu_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(BackendError, match="sees no GPU"):
        load(EngineSource("torch-cuda", b""))
