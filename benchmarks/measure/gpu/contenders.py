"""What can run a network on a GPU, opened in a process of its own."""

from __future__ import annotations

import importlib
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stpm.runtime.backends import (
    BuiltEngine,
    BulkEngine,
    DeviceEngine,
    Outputs,
    open_engine,
)
from stpm.runtime.errors import StpmError

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
class GpuContender:
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
    device: Callable[[Any], Any] | None
    replay_seconds: Callable[[int], float] | None = None


def open_contender(
    name: str, checkpoint: Path, size: int, onnx: Path, batch: int, device: str
) -> GpuContender:
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
    if name == "dies":
        os.kill(os.getpid(), signal.SIGSEGV)
    if name == "hangs":
        time.sleep(10**6)
    if name.startswith("torch ") or name == COMPILED:
        # Not above: an engine's time to its first score is without the training code.
        from stpm.benchmarks.measure.gpu.torch_contenders import open_torch

        return open_torch(name, checkpoint, size, device)
    return _engine(name, onnx.read_bytes(), (1, batch))


def _engine(name: str, model: bytes, batch: tuple[int, int]) -> GpuContender:
    built: BuiltEngine | None = None
    if name.startswith("tensorrt"):
        from stpm.export.tensorrt import build_engine
        from stpm.runtime.backends.tensorrt.build import BuildOptions

        # First, because it also says what a library without a place for this GPU says.
        with suppress(StpmError):
            built = build_engine(name, model, "fp16", batch, BuildOptions())
    if name.startswith("onnxruntime"):
        # The provider takes the CUDA libraries that torch has loaded, wherever they lie.
        importlib.import_module("torch")
    engine = open_engine(name, model, batch=batch, built=built)
    return GpuContender(
        "fp16",
        engine.built_with(),
        engine.run,
        engine.run_scores if isinstance(engine, BulkEngine) else None,
        engine.run_on_device if isinstance(engine, DeviceEngine) else None,
        getattr(engine, "replay_seconds", None),
    )
