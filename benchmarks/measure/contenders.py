"""What else could run the same network: torch, the straightforward graph, anomalib's tools."""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
import onnxruntime as ort
import openvino as ov
import torch
from numpy.typing import NDArray

from stpm.benchmarks.records.environment import environment
from stpm.runtime.detector import Detector
from stpm.runtime.errors import BackendError
from stpm.runtime.images.preprocess import resize
from stpm.train.checkpoint import Checkpoint
from stpm.train.methods import Network
from stpm.train.methods.stpm.network import ModelConfig

Image8 = NDArray[np.uint8]
Map = NDArray[np.float32]
WORKER = Path(__file__).with_name("anomalib_worker.py")
ANOMALIB_INSTALL = (
    "python -m venv anomalib-env && "
    "anomalib-env/bin/pip install anomalib==2.7.0 openvino onnx onnxscript"
)
"""The environment that --anomalib asks for; anomalib's own ranges exclude ours."""


@dataclass(frozen=True)
class Contender:
    """Something that turns a camera frame into an anomaly map.

    Attributes:
        name: as shown.
        precision: that teacher and student run in.
        score: takes a frame's index; returns ms from the frame in memory to the map, and the map
            float32 (h,w).
        detector: with the bundle that it runs; None for what others run.
    """

    name: str
    precision: str
    score: Callable[[int], tuple[float, Map]]
    detector: Detector | None = None


Opener = Callable[[], AbstractContextManager[Contender]]


def timed(infer: Callable[[Image8], Map], frames: Sequence[Image8]) -> Any:
    """Return a `Contender.score` that runs in this process."""

    def score(index: int) -> tuple[float, Map]:
        start = time.perf_counter_ns()
        anomaly_map = infer(frames[index])
        return (time.perf_counter_ns() - start) / 1e6, anomaly_map

    return score


def contenders(
    checkpoint: Checkpoint, frames: Sequence[Image8], anomalib_python: Path | None
) -> dict[str, Opener]:
    """Name what can be tried, each with what opens it.

    Args:
        checkpoint: the network that all of them run.
        frames: uint8 (H,W,3) of one size.
        anomalib_python: interpreter of an environment with anomalib; see `ANOMALIB_INSTALL`.
    """
    model = checkpoint.model().eval()
    precisions = ["fp32"]
    if "avx512_bf16" in environment()["processor"]["flags"]:
        precisions.append("bf16")
    found: dict[str, Opener] = {
        "ONNX Runtime, straightforward graph": partial(_onnxruntime, model, frames),
    }
    for precision in precisions:
        for name in ("torch eager", "torch.compile"):
            found[f"{name}, {precision}"] = partial(_torch, name, model, frames, precision)
        found[f"OpenVINO, straightforward graph, {precision}"] = partial(
            _openvino, model, frames, precision
        )
        found[f"anomalib's OpenVINO inferencer, {precision}"] = partial(
            _anomalib, checkpoint, frames, anomalib_python, precision
        )
    return found


@contextmanager
def _torch(
    name: str, model: Network, frames: Sequence[Image8], precision: str
) -> Iterator[Contender]:
    network: Any = torch.compile(model) if name == "torch.compile" else model
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16")

    def infer(frame: Image8) -> Map:
        with torch.inference_mode(), autocast:
            resized = resize(frame, model.input_size)
            anomaly_map, _ = network(torch.tensor(resized[None]))
        return np.asarray(anomaly_map[0].float())

    infer(frames[0])  # compiles, or fails here
    yield Contender(name, precision, timed(infer, frames))


def _straightforward(model: Network) -> bytes:
    """Export the network as it is written for torch: nothing folded, Interpolate nodes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        example = torch.zeros(1, *model.input_size, 3, dtype=torch.uint8)
        torch.onnx.export(
            model, (example,), path, input_names=["images"], external_data=False, verbose=False
        )
        return path.read_bytes()


@contextmanager
def _onnxruntime(model: Network, frames: Sequence[Image8]) -> Iterator[Contender]:
    session = ort.InferenceSession(_straightforward(model), providers=["CPUExecutionProvider"])

    def infer(frame: Image8) -> Map:
        resized = resize(frame, model.input_size)
        anomaly_map: Map = session.run(None, {"images": resized[None]})[0][0]
        return anomaly_map

    yield Contender("ONNX Runtime, straightforward graph", "fp32", timed(infer, frames))


@contextmanager
def _openvino(model: Network, frames: Sequence[Image8], precision: str) -> Iterator[Contender]:
    core = ov.Core()
    compiled = core.compile_model(
        core.read_model(_straightforward(model)), "CPU", _openvino_config(precision)
    )
    request = compiled.create_infer_request()

    def infer(frame: Image8) -> Map:
        request.infer([resize(frame, model.input_size)[None]], share_inputs=True)
        return np.array(request.get_output_tensor(0).data[0])

    yield Contender("OpenVINO, straightforward graph", precision, timed(infer, frames))


def _openvino_config(precision: str) -> dict[str, str]:
    hint = {"fp32": "f32", "bf16": "bf16"}[precision]
    return {"INFERENCE_PRECISION_HINT": hint, "PERFORMANCE_HINT": "LATENCY"}


@contextmanager
def _anomalib(
    checkpoint: Checkpoint, frames: Sequence[Image8], python: Path | None, precision: str
) -> Iterator[Contender]:
    if python is None:
        raise BackendError(f"not requested; {ANOMALIB_INSTALL}, then --anomalib")
    config = checkpoint.config
    if not isinstance(config, ModelConfig):
        raise BackendError(f"supports only stpm, not {config.method}")
    if config.share_to:
        raise BackendError("supports only whole students, not --share-to")
    settings = {
        "backbone": config.backbone,
        "levels": config.levels,
        "input_size": config.input_size,
        "config": _openvino_config(precision),
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        weights, images, answer = (folder / n for n in ("weights.pt", "frames.npy", "map.npy"))
        torch.save({"teacher": checkpoint.teacher, "student": checkpoint.student}, weights)
        np.save(images, np.stack(frames))
        command = [str(python), "-I", str(WORKER), str(weights), str(images), json.dumps(settings)]
        pipe = subprocess.PIPE
        with (
            (folder / "log").open("w+") as log,
            subprocess.Popen(command, text=True, stdin=pipe, stdout=pipe, stderr=log) as worker,
        ):
            _answer(worker, log)  # it is ready

            def score(index: int) -> tuple[float, Map]:
                assert worker.stdin is not None
                request = {"index": index, "map": str(answer)}
                worker.stdin.write(json.dumps(request) + "\n")
                worker.stdin.flush()
                elapsed_ms: float = _answer(worker, log)["ms"]
                return elapsed_ms, np.load(answer)

            try:
                yield Contender("anomalib's OpenVINO inferencer", precision, score)
            finally:
                worker.kill()


def _answer(worker: subprocess.Popen[str], log: IO[str]) -> dict[str, Any]:
    assert worker.stdout is not None
    line = worker.stdout.readline()
    if not line:
        log.seek(0)
        reason = log.read().strip().splitlines()[-1:] or ["no message"]
        raise BackendError(f"anomalib's process ended ({reason[0]})")
    found: dict[str, Any] = json.loads(line)
    return found
