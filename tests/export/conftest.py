"""Graphs of the tiny run, each exported once for all tests."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
import torch

from stpm.export import pipeline
from stpm.export.graph import DeploymentGraph
from stpm.export.int8.quantize import quantize
from stpm.export.onnx import onnx_from_graph
from stpm.train.checkpoint import Checkpoint, load_checkpoint
from stpm.train.datasets import read_images
from stpm.train.methods import Network

Size = tuple[int, int]
ExportOnnx = Callable[..., Path]
Networks = Callable[[str], Network]


@pytest.fixture(scope="session")
def checkpoint(checkpoint_path: Path) -> Checkpoint:
    return load_checkpoint(checkpoint_path)


@pytest.fixture(scope="session")
def networks(checkpoint: Checkpoint) -> Networks:
    """Returns precision -> the tiny run's network as it is exported: in INT8 quantised."""

    @functools.cache
    def network(precision: str) -> Network:
        model = checkpoint.model()
        if precision != "int8":
            return model
        _, pixels = read_images(checkpoint.train_images(), model.input_size)
        return quantize(model, torch.from_numpy(pixels))

    return network


@pytest.fixture(scope="session")
def export_onnx(tmp_path_factory: pytest.TempPathFactory, networks: Networks) -> ExportOnnx:
    """Returns (precision, batch, camera_size) -> ONNX file of the tiny run."""
    folder = tmp_path_factory.mktemp("onnx")

    @functools.cache
    def once(precision: str, batch: Size, camera_size: Size | None) -> Path:
        graph = DeploymentGraph(networks(precision), precision, camera_size)
        path = folder / f"{precision}_{batch}_{camera_size}.onnx"
        onnx_from_graph(graph, path, batch)
        return path

    def export(
        precision: str = "fp32", batch: Size = (1, 4), camera_size: Size | None = None
    ) -> Path:
        return once(precision, batch, camera_size)

    return export


@pytest.fixture
def exports_once(monkeypatch: pytest.MonkeyPatch, export_onnx: ExportOnnx) -> None:
    """Makes the pipeline take those graphs instead of exporting anew."""

    def from_file(graph: DeploymentGraph, path: Path, batch: Size) -> onnx.ModelProto:
        resizes = graph.input_size != graph.map_size
        source = export_onnx(graph.precision, batch, graph.input_size if resizes else None)
        path.write_bytes(source.read_bytes())
        return onnx.load(path)

    monkeypatch.setattr(pipeline, "onnx_from_graph", from_file)
