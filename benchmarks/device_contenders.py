"""What can run a network on a GPU, each with host arrays and with arrays on the device."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from stpm.export.graph import DeploymentGraph
from stpm.export.onnx import onnx_from_graph
from stpm.export.tensorrt import build_engine
from stpm.export.torch_cuda import package_from_graph
from stpm.runtime.backends import BuiltEngine, DeviceEngine, Engine, Outputs, open_engine
from stpm.runtime.backends.tensorrt_build import BuildOptions
from stpm.runtime.errors import StpmError
from stpm.train.stpm import Stpm

ENGINES = ("torch-cuda", "tensorrt", "tensorrt-rtx", "onnxruntime-cuda", "onnxruntime-tensorrt")
TORCH = ("torch eager fp32", "torch eager fp16", "torch.compile fp16")


@dataclass(frozen=True)
class Contender:
    """Something that scores batches.

    Attributes:
        name: as shown.
        precision: of teacher and student.
        on_host: uint8 (N,H,W,3) in the host's memory to maps and scores there.
        on_device: the same on the device, done when it returns; None when it cannot.
    """

    name: str
    precision: str
    on_host: Callable[[NDArray[np.uint8]], Outputs]
    on_device: Callable[[Tensor], Any] | None


def open_contenders(
    model: Stpm, batch: int, device: str, folder: Path
) -> tuple[list[Contender], dict[str, str]]:
    """Open all that runs here.

    Args:
        model: the network, on the processor, of the input size to run.
        batch: the largest that is run.
        device: "cuda" or "cpu"; on the processor only torch is tried, and torch-cuda's package.
        folder: for the ONNX file.

    Returns:
        The contenders, and why each of the others does not run.
    """
    found, refused = [], {}
    for name in TORCH:
        try:
            found.append(_torch(name, model, device))
        except (RuntimeError, StpmError) as error:
            refused[name] = str(error)
    path = folder / "model.onnx"
    graph = DeploymentGraph(model, "fp16")
    limits = (1, batch)
    onnx_from_graph(graph, path, limits)
    for name in ENGINES:
        try:
            engine = _engine(name, graph, path.read_bytes(), limits, device)
            on_device = engine.run_on_device if isinstance(engine, DeviceEngine) else None
            found.append(Contender(name, "fp16", engine.run, on_device))
        except (RuntimeError, StpmError) as error:
            refused[name] = str(error)
    return found, refused


def _engine(
    name: str, graph: DeploymentGraph, model: bytes, batch: tuple[int, int], device: str
) -> Engine:
    built = None
    if name == "torch-cuda" and device == "cuda":
        from stpm.runtime.backends.torch_cuda import versions

        built = BuiltEngine(package_from_graph(graph, batch, device), versions())
    elif name.startswith("tensorrt"):
        # First, because it also says what a library without a place for this GPU says.
        with suppress(StpmError):
            built = build_engine(name, model, graph.precision, batch, BuildOptions())
    return open_engine(name, model, batch=batch, built=built)


def _torch(name: str, model: Stpm, device: str) -> Contender:
    precision = "fp16" if name.endswith("fp16") and device == "cuda" else "fp32"
    network: nn.Module = copy.deepcopy(model)
    if name.endswith("fp16"):
        network = DeploymentGraph(model, precision).to(memory_format=torch.channels_last)
    run: Any = network.to(device).eval()
    if name.startswith("torch.compile"):
        # Also captures CUDA graphs.
        run = torch.compile(run, mode="reduce-overhead", dynamic=False)

    def on_device(images: Tensor) -> Any:
        with torch.inference_mode():
            outputs = run(images)
        if device == "cuda":
            torch.cuda.synchronize()
        return outputs

    def on_host(images: NDArray[np.uint8]) -> Outputs:
        maps, scores = on_device(torch.from_numpy(images).to(device))
        return maps.cpu().numpy(), scores.cpu().numpy()

    return Contender(name, precision, on_host, on_device)
