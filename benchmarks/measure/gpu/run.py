"""One interleaved run of all contenders, whatever becomes of each."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stpm.benchmarks.measure.gpu.cases import Case, cases
from stpm.benchmarks.measure.gpu.contenders import OURS
from stpm.benchmarks.measure.gpu.process import WorkerProcess
from stpm.runtime.errors import BackendError
from stpm.runtime.output.console import note

OPEN_LIMIT_S = 150.0
CASE_LIMIT_S = 90.0
BLOCK = 10
"""Runs of one contender before it is another's turn."""
SUSTAINED = 4096
"""Images of one call that fills the GPU."""
SUSTAINED_RUNS = 5
Content = dict[str, Any]


@dataclass(frozen=True)
class DevicePlan:
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


def measure(plan: DevicePlan, content: Content, write: Callable[[], None]) -> None:
    """Fill `content`, and write it after every step."""
    content |= {"cases": [], "correctness": {}, "starts": {}, "sustained": {}, "refused": {}}
    content["left_out"] = []
    for size in plan.sizes:
        if plan.seconds_left <= 0:
            content["left_out"].append(f"{size}x{size}")
        else:
            _measure_size(plan, size, content, write)
        if size == plan.sizes[0]:
            _measure_roofline(plan, content)
            write()


def _measure_roofline(plan: DevicePlan, content: Content) -> None:
    if plan.seconds_left <= 0:
        content["left_out"].append("roofline")
        return
    request = {
        "do": "roofline",
        "checkpoint": str(plan.checkpoint),
        "sizes": list(plan.sizes),
        "batches": list(plan.batches),
        "device": plan.device,
    }
    found = _in_a_process_of_its_own("roofline", request, plan)
    if "error" in found:
        content["refused"]["roofline"] = found["error"]
    else:
        content["peak"], content["roofline"] = found["peak"], found["rows"]


def _measure_size(plan: DevicePlan, size: int, content: Content, write: Callable[[], None]) -> None:
    request = _prepare(plan, size)
    prepared = _in_a_process_of_its_own("preparation", request | {"do": "prepare"}, plan)
    if "error" in prepared:
        content["refused"][f"preparation of {size}x{size}"] = prepared["error"]
        return
    is_first = size == plan.sizes[0]
    with ExitStack() as stack:
        if is_first and OURS in plan.contenders:
            for state in ("empty cache", "full cache"):
                with WorkerProcess(OURS, plan.folder / "cache") as worker:
                    content["starts"][state] = _ask_or_say(worker, request, OPEN_LIMIT_S, plan)
                    note(f"{OURS}, {state}: {content['starts'][state]}")
                write()
        workers = [
            stack.enter_context(WorkerProcess(name, plan.folder / "cache"))
            for name in plan.contenders
        ]
        # Side by side: what they compile does not use the GPU, and nothing is timed yet.
        with ThreadPoolExecutor(len(workers)) as pool:
            opened = list(pool.map(lambda w: _ask_or_say(w, request, OPEN_LIMIT_S, plan), workers))
        modes = {}
        for worker, answer in zip(workers, opened, strict=True):
            note(f"{size}x{size} {worker.name}: {answer.get('error') or 'open'}")
            if "error" in answer:
                content["refused"].setdefault(worker.name, answer["error"])
            else:
                modes[worker] = answer["modes"]
                content.setdefault("built_with", {})[worker.name] = answer["built_with"]
        if prepared["golden_size"] == [size, size]:
            for worker in modes:
                check = {"do": "check", "bundle": request["bundle"]}
                content["correctness"][worker.name] = _ask_or_say(worker, check, CASE_LIMIT_S, plan)
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


def _prepare(plan: DevicePlan, size: int) -> dict[str, Any]:
    """Return the request that opens a contender; its graph and frames are yet to be written."""
    return {
        "do": "open",
        "checkpoint": str(plan.checkpoint),
        "bundle": str(plan.checkpoint.with_suffix(".stpm")),
        "size": size,
        "onnx": str(plan.folder / f"{size}.onnx"),
        "frames": str(plan.folder / f"{size}.npy"),
        "batch": max(plan.batches),
        "device": plan.device,
    }


def _in_a_process_of_its_own(
    name: str, request: dict[str, Any], plan: DevicePlan
) -> dict[str, Any]:
    with WorkerProcess(name, plan.folder / "cache") as worker:
        return _ask_or_say(worker, request, OPEN_LIMIT_S, plan)


def _ask_or_say(
    worker: WorkerProcess, request: dict[str, Any], limit_s: float, plan: DevicePlan
) -> dict[str, Any]:
    """Ask, for as long as the plan has time; what fails is the answer's `error`."""
    if request["do"] == "open":
        request = request | {"contender": worker.name, "started": worker.started}
    try:
        return worker.ask(request, min(limit_s, plan.seconds_left))
    except BackendError as error:
        return {"error": str(error)}


def _time_case(
    case: Case, workers: Sequence[WorkerProcess], plan: DevicePlan
) -> list[dict[str, Any]]:
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
            answer = _ask_or_say(worker, request, CASE_LIMIT_S, plan)
            result |= {key: answer[key] for key in ("error", "peak_bytes") if key in answer}
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


def _sustain(
    worker: WorkerProcess, modes: Sequence[str], plan: DevicePlan, content: Content
) -> None:
    for mode in ("scores", "maps"):
        if mode not in modes or worker.name != OURS or plan.seconds_left <= 0:
            continue
        count = SUSTAINED if plan.device == "cuda" else max(plan.batches)
        request = {"do": "sustain", "batch": count, "mode": mode, "runs": SUSTAINED_RUNS}
        answer = _ask_or_say(worker, request, CASE_LIMIT_S, plan)
        content["sustained"].setdefault(worker.name, {})[mode] = answer
        note(f"{count} images in one call, {mode}, {worker.name}: {answer}")
