"""torch's own modules as contenders: eager and compiled."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from stpm.benchmarks.measure.gpu.contenders import COMPILED, GpuContender
from stpm.export.graph import DeploymentGraph
from stpm.runtime.backends import Outputs
from stpm.runtime.errors import DataError
from stpm.train.checkpoint import load_checkpoint
from stpm.train.methods.stpm.network import Stpm


def sized_model(checkpoint: Path, size: int) -> Stpm:
    """Load a student for images of size x size pixels, whatever it was trained on.

    Raises:
        DataError: it is of another method.
    """
    model = load_checkpoint(checkpoint).model()
    if not isinstance(model, Stpm):
        raise DataError(
            f"{checkpoint}: is a checkpoint of another method, expected stpm; leave it out."
        )
    sized = Stpm(replace(model.config, input_size=(size, size)), model.teacher)
    sized.load_state_dict(model.state_dict())
    return sized.eval()


def open_torch(name: str, checkpoint: Path, size: int, device: str) -> GpuContender:
    """Open torch's modules; see `open_contender` for the arguments."""
    # FP32 means FP32: no TF32.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    model = sized_model(checkpoint, size)
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

    return GpuContender(precision, {"torch": torch.__version__}, on_host, scores, on_device)
