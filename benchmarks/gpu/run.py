"""One interleaved run of all contenders, whatever becomes of each."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stpm.benchmarks.gpu.cases import Case, bars, cases
from stpm.benchmarks.gpu.contenders import OURS, sized_model
from stpm.benchmarks.gpu.process import WorkerProcess
from stpm.benchmarks.roofline import cost_of, measure_peak
from stpm.export.graph import DeploymentGraph
from stpm.export.onnx import onnx_from_graph
from stpm.runtime.bundle import Bundle
from stpm.runtime.console import note
from stpm.runtime.errors import BackendError
from stpm.runtime.preprocess import resize

OPEN_LIMIT_S = 150.0
CASE_LIMIT_S = 90.0
BLOCK = 10
"""Runs of one contender before it is another's turn."""
SUSTAINED = 4096
"""Images of one call that fills the GPU."""
SUSTAINED_RUNS = 5
Content = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """What to measure.

    Attributes:
        checkpoint: of the network, with its bundle beside it.
        contenders: names, the most important first.
        batches: images in one run.
        sizes: sides of the network's input in pixels.
        rounds: times that each case is run, in turn with the others.
        device: "cuda", or "cpu" to try the script.
        deadline: as of `time.monotonic`, after which no case is begun.
        folder: for graphs, frames and caches.
    """

    checkpoint: Path
    contenders: Sequence[str]
    batches: Sequence[int]
    sizes: Sequence[int]
    rounds: int
    device: str
    deadline: float
    folder: Path

    @property
    def seconds_left(self) -> float:
        """Seconds until the deadline."""
        return self.deadline - time.monotonic()


def measure(plan: Plan, content: Content, write: Callable[[], None]) -> None:
    """Fill `content`, and write it after every step."""
    content |= {"cases": [], "correctness": {}, "starts": {}, "sustained": {}, "refused": {}}
    content["left_out"] = []
    for size in plan.sizes:
        if plan.seconds_left <= 0:
            content["left_out"].append(f"{size}x{size}")
            continue
        _measure_size(plan, size, content, write)
    content["bars"] = bars(content)
    if plan.seconds_left > 0:
        content["peak"] = asdict(measure_peak(plan.device))
        content["roofline"] = [_roofline(plan, size, content) for size in plan.sizes]
    write()


def _measure_size(plan: Plan, size: int, content: Content, write: Callable[[], None]) -> None:
    request = _prepare(plan, size)
    is_first = size == plan.sizes[0]
    with ExitStack() as stack:
        if is_first and OURS in plan.contenders:
            for state in ("empty cache", "full cache"):
                with WorkerProcess(OURS, plan.folder / "cache") as worker:
                    content["starts"][state] = _ask_or_say(worker, request, OPEN_LIMIT_S)
                    note(f"{OURS}, {state}: {content['starts'][state]}")
                write()
        workers = [
            stack.enter_context(WorkerProcess(name, plan.folder / "cache"))
            for name in plan.contenders
        ]
        limit = min(OPEN_LIMIT_S, plan.seconds_left)
        # Side by side: what they compile does not use the GPU, and nothing is timed yet.
        with ThreadPoolExecutor(len(workers)) as pool:
            opened = list(pool.map(lambda w: _ask_or_say(w, request, limit), workers))
        modes = {}
        for worker, answer in zip(workers, opened, strict=True):
            note(f"{size}x{size} {worker.name}: {answer.get('error') or 'open'}")
            if "error" in answer:
                content["refused"].setdefault(worker.name, answer["error"])
            else:
                modes[worker] = answer["modes"]
                content.setdefault("built_with", {})[worker.name] = answer["built_with"]
        if Bundle(_bundle(plan.checkpoint)).golden().images.shape[1:3] == (size, size):
            for worker in modes:
                check = {"do": "check", "bundle": str(_bundle(plan.checkpoint))}
                content["correctness"][worker.name] = _ask_or_say(worker, check, CASE_LIMIT_S)
                note(f"correctness, {worker.name}: {content['correctness'][worker.name]}")
        write()
        for case in cases([size], plan.batches, [w.name for w in modes]):
            able = [
                w for w, known in modes.items() if case.mode in known and w.name in case.contenders
            ]
            if plan.seconds_left <= 0:
                content["left_out"].append(f"{size}x{size}, batch {case.batch}, {case.mode}")
                continue
            content["cases"] += _time_case(case, able, plan)
            write()
        if is_first:
            for worker, known in modes.items():
                _sustain(worker, known, plan, content)
                write()


def _prepare(plan: Plan, size: int) -> dict[str, Any]:
    """Write the graph and the frames of a size; returns the request that opens a contender."""
    onnx, frames = plan.folder / f"{size}.onnx", plan.folder / f"{size}.npy"
    largest = max(plan.batches)
    onnx_from_graph(DeploymentGraph(sized_model(plan.checkpoint, size), "fp16"), onnx, (1, largest))
    images = Bundle(_bundle(plan.checkpoint)).golden().images
    np.save(frames, np.stack([resize(image, (size, size)) for image in images]))
    return {
        "do": "open",
        "checkpoint": str(plan.checkpoint),
        "size": size,
        "onnx": str(onnx),
        "frames": str(frames),
        "batch": largest,
        "device": plan.device,
    }


def _bundle(checkpoint: Path) -> Path:
    return checkpoint.with_suffix(".stpm")


def _ask_or_say(worker: WorkerProcess, request: dict[str, Any], limit_s: float) -> dict[str, Any]:
    """Ask; what fails is the answer's `error`."""
    if request["do"] == "open":
        request = request | {"contender": worker.name, "started": worker.started}
    try:
        return worker.ask(request, limit_s)
    except BackendError as error:
        return {"error": str(error)}


def _time_case(case: Case, workers: Sequence[WorkerProcess], plan: Plan) -> list[dict[str, Any]]:
    """Time a case on every worker, a block of runs each in turn, as clocks and heat change."""
    found: dict[WorkerProcess, dict[str, Any]] = {
        worker: {
            "contender": worker.name,
            "size": case.size,
            "batch": case.batch,
            "mode": case.mode,
            "seconds": [],
            "gpu_seconds": [],
        }
        for worker in workers
    }
    for start in range(0, plan.rounds, BLOCK):
        for worker, result in found.items():
            if "error" in result or plan.seconds_left <= 0:
                continue
            runs = min(BLOCK, plan.rounds - start)
            request = {"do": "time", "batch": case.batch, "mode": case.mode, "runs": runs}
            answer = _ask_or_say(worker, request, CASE_LIMIT_S)
            result |= {"error": answer["error"]} if "error" in answer else {}
            for key in ("seconds", "gpu_seconds"):
                result[key] += answer.get(key, [])
    for result in found.values():
        note(_case_line(result))
    return list(found.values())


def _case_line(case: dict[str, Any]) -> str:
    name = f"{case['size']}x{case['size']} batch {case['batch']} {case['mode']} {case['contender']}"
    if not case["seconds"]:
        return f"{name}: {case.get('error', 'not run')}"
    texts = [f"{np.median(case['seconds']) * 1e3:.3f} ms"]
    if case["gpu_seconds"]:
        texts.append(f"{np.median(case['gpu_seconds']) * 1e3:.4f} ms on the GPU")
    rate = case["batch"] / np.median(case["gpu_seconds"] or case["seconds"])
    return f"{name}: {', '.join(texts)}, {rate:.0f} images/s"


def _sustain(worker: WorkerProcess, modes: Sequence[str], plan: Plan, content: Content) -> None:
    for mode in ("scores", "maps"):
        if mode not in modes or worker.name != OURS or plan.seconds_left <= 0:
            continue
        count = SUSTAINED if plan.device == "cuda" else max(plan.batches)
        request = {"do": "sustain", "batch": count, "mode": mode, "runs": SUSTAINED_RUNS}
        answer = _ask_or_say(worker, request, CASE_LIMIT_S)
        content["sustained"].setdefault(worker.name, {})[mode] = answer
        note(f"{count} images in one call, {mode}, {worker.name}: {answer}")


def _roofline(plan: Plan, size: int, content: Content) -> dict[str, Any]:
    from stpm.benchmarks.roofline import Peak

    bytes_a_value = 2 if plan.device == "cuda" else 4
    cost = cost_of(sized_model(plan.checkpoint, size), (size, size), bytes_a_value)
    peak = Peak(**content["peak"])
    least = {str(n): peak.least_seconds(cost.batch(n)) for n in plan.batches}
    return {"size": size, "image": asdict(cost), "least_seconds": least}
