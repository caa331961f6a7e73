"""The deployment graph as an AOTInductor package, in parts that `torch-cuda` runs abreast."""

from __future__ import annotations

import copy
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._inductor import aot_compile
from torch._inductor.package.package import package_aoti

from stpm.export.graph import DeploymentGraph
from stpm.runtime.backends import BuiltEngine
from stpm.runtime.backends.torch_cuda import PARTS, versions, without_tf32
from stpm.runtime.errors import ExportError


def package_from_graph(graph: DeploymentGraph, batch: tuple[int, int], device: str) -> bytes:
    """Compile a deployment graph for torch's own runtime, with channels last.

    Args:
        graph: the deployment graph; not changed.
        batch: smallest and largest batch; equal for a fixed one.
        device: "cuda", or "cpu".

    Returns:
        The content of a .pt2 package with the models `PARTS`.

    Raises:
        ExportError: torch cannot compile it here.
    """
    if graph.model.networks != ("teacher", "student"):
        raise ExportError(
            "torch-cuda runs a teacher and a student abreast, which this method does not have; "
            "choose another engine."
        )
    smallest, largest = batch
    count = largest if smallest == largest else max(largest, 2)
    dim = torch.export.Dim("batch", min=smallest, max=largest) if smallest < largest else None
    graph = copy.deepcopy(graph).to(device).to(memory_format=torch.channels_last)
    images = torch.zeros(count, *graph.input_size, 3, dtype=torch.uint8, device=device)
    parts = (_Prepare(graph), graph.model.teacher, graph.model.student, _Score(graph))
    try:
        with tempfile.TemporaryDirectory() as folder, torch.no_grad(), without_tf32():
            x = parts[0](images)
            features = (*parts[1](x), *parts[2](x))
            inputs: Iterable[tuple[Tensor, ...]] = ((images,), (x,), (x,), features)
            files: dict[str, Any] = {
                name: _compile(part, example, dim, Path(folder) / name)
                for name, part, example in zip(PARTS, parts, inputs, strict=True)
            }
            path = Path(folder) / "package.pt2"
            package_aoti(str(path), files)
            return path.read_bytes()
    except Exception as error:
        # What goes wrong in the compilers below torch shares no class but Exception.
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ExportError(
            f"torch {torch.__version__} cannot compile this network for {device} ({reason[0]}); "
            "it needs a C++ compiler and, for a GPU, triton; or choose another engine."
        ) from error


def build_package(graph: DeploymentGraph, batch: tuple[int, int]) -> BuiltEngine:
    """Compile a deployment graph for the GPU at hand; see `package_from_graph`."""
    return BuiltEngine(package_from_graph(graph, batch, "cuda"), versions())


class _Prepare(nn.Module):
    """Images in, what both networks take out."""

    def __init__(self, graph: DeploymentGraph) -> None:
        super().__init__()
        self.deployment = graph

    def forward(self, images: Tensor) -> Tensor:
        return self.deployment.prepare(images).contiguous(memory_format=torch.channels_last)


class _Score(nn.Module):
    """The features of the teacher, then those of the student, in; maps and scores out."""

    def __init__(self, graph: DeploymentGraph) -> None:
        super().__init__()
        self.deployment = graph

    def forward(self, *features: Tensor) -> tuple[Tensor, Tensor]:
        levels = len(features) // 2
        return self.deployment.score(features[:levels], features[levels:])


def _compile(part: nn.Module, example: tuple[Tensor, ...], dim: Any, folder: Path) -> list[str]:
    shapes = None
    if dim is not None:
        each = tuple({0: dim} for _ in example)
        shapes = (each,) if isinstance(part, _Score) else each
    program = torch.export.export(part.eval(), example, dynamic_shapes=shapes)
    files: Any = aot_compile(
        program.module(),
        example,
        options={"aot_inductor.package": True},
    )
    # Teacher and student have the same code, and the second to compile overwrites the first.
    folder.mkdir()
    return [str(shutil.copy(file, folder)) for file in files if isinstance(file, str)]
