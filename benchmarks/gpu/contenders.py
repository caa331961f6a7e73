"""What can run a network on a GPU, opened in a process of its own."""

from __future__ import annotations

import importlib
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from stpm.export.graph import DeploymentGraph
from stpm.export.tensorrt import build_engine
from stpm.runtime.backends import (
    BuiltEngine,
    BulkEngine,
    DeviceEngine,
    Outputs,
    open_engine,
)
from stpm.runtime.backends.tensorrt_build import BuildOptions
from stpm.runtime.errors import StpmError
from stpm.train.checkpoint import load_checkpoint
from stpm.train.methods.stpm.network import Stpm

OURS = "torch-cuda"
EAGER = "torch eager fp32"
COMPILED = "torch.compile fp16"
CONTENDERS = (
    OURS,
    EAGER,
    "torch eager fp16",
    COMPILED,
    "onnxruntime-cuda",
    "tensorrt",
    "tensorrt-rtx",
    "onnxruntime-tensorrt",
)
"""The most important first."""
SABOTEURS = ("dies", "hangs")
"""Kill themselves or never answer, to try what becomes of the others."""


@dataclass(frozen=True)
class Contender:
    """Something that scores batches; all work is done when a call returns.

    Attributes:
        precision: of teacher and student.
        built_with: versions and device.
        maps: uint8 (N,H,W,3) in the host's memory to maps and scores there.
        scores: the same to scores alone; None when it always makes maps.
        device: the same on the device; None when it cannot.
        replay_seconds: the GPU's own time for a batch of some size; None where only the caller's
            time can be taken.
    """

    precision: str
    built_with: dict[str, str]
    maps: Callable[[NDArray[np.uint8]], Outputs]
    scores: Callable[[NDArray[np.uint8]], Any] | None
    device: Callable[[Tensor], Any] | None
    replay_seconds: Callable[[int], float] | None = None


def sized_model(checkpoint: Path, size: int) -> Stpm:
    """Load a student for images of size x size pixels, whatever it was trained on.

    Raises:
        StpmError: it is of another method.
    """
    model = load_checkpoint(checkpoint).model()
    if not isinstance(model, Stpm):
        raise StpmError(f"{checkpoint}: is of another method, expected stpm; take it out.")
    sized = Stpm(replace(model.config, input_size=(size, size)), model.teacher)
    sized.load_state_dict(model.state_dict())
    return sized.eval()


def open_contender(
    name: str, checkpoint: Path, size: int, onnx: Path, batch: int, device: str
) -> Contender:
    """Open one of `CONTENDERS`.

    Args:
        name: the contender's.
        checkpoint: for those that run torch's modules.
        size: side of the images in pixels.
        onnx: for engines: the graph for up to `batch` images.
        batch: the largest that is run.
        device: "cuda", or "cpu", where engines for a GPU refuse.

    Raises:
        Exception: whatever the contender raises.
    """
    # FP32 means FP32: no TF32.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    if name == "dies":
        os.kill(os.getpid(), signal.SIGSEGV)
    if name == "hangs":
        time.sleep(10**6)
    if name.startswith("torch ") or name == COMPILED:
        return _torch(name, sized_model(checkpoint, size), device)
    return _engine(name, onnx.read_bytes(), (1, batch))


def _engine(name: str, model: bytes, batch: tuple[int, int]) -> Contender:
    built: BuiltEngine | None = None
    if name.startswith("tensorrt"):
        # First, because it also says what a library without a place for this GPU says.
        with suppress(StpmError):
            built = build_engine(name, model, "fp16", batch, BuildOptions())
    if name.startswith("onnxruntime"):
        # The provider takes the CUDA libraries that torch has loaded, wherever they lie.
        importlib.import_module("torch")
    engine = open_engine(name, model, batch=batch, built=built)
    return Contender(
        "fp16",
        engine.built_with(),
        engine.run,
        engine.run_scores if isinstance(engine, BulkEngine) else None,
        engine.run_on_device if isinstance(engine, DeviceEngine) else None,
        getattr(engine, "replay_seconds", None),
    )


def _torch(name: str, model: Stpm, device: str) -> Contender:
    precision = "fp16" if name.endswith("fp16") and device == "cuda" else "fp32"
    network: nn.Module = model
    if name.endswith("fp16"):
        network = DeploymentGraph(model, precision).to(memory_format=torch.channels_last)
    run: Any = network.to(device).eval()
    if name == COMPILED:
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

    def scores(images: NDArray[np.uint8]) -> Any:
        return on_device(torch.from_numpy(images).to(device))[1].cpu().numpy()

    return Contender(precision, {"torch": torch.__version__}, on_host, scores, on_device)
