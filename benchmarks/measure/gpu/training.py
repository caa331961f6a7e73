"""Training on a GPU: several seeds of a category side by side, their time and accuracy."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stpm.benchmarks.measure.gpu.process import WorkerProcess
from stpm.runtime.errors import BackendError
from stpm.runtime.images.listing import folders_in
from stpm.runtime.output.console import note
from stpm.train.run_files import log_path

PROGRAM = "from stpm.train.cli import main; main()"


@dataclass(frozen=True)
class Trainings:
    """What to train.

    Attributes:
        data: folder of categories in the layout of MVTec AD.
        teacher_weights: file of the teacher's weights; None takes ImageNet's.
        epochs, seeds: of each category.
        device: "cuda" or "cpu".
        deadline: as of `time.monotonic`, after which a training is ended, or not begun.
    """

    data: Path
    teacher_weights: Path | None
    epochs: int
    seeds: int
    device: str
    deadline: float


def train_models(plan: Trainings, content: dict[str, Any], write: Callable[[], None]) -> None:
    """Train each category, first one seed alone, then all at once; write after each."""
    content["training"] = []
    for category in folders_in(plan.data):
        groups = [[0], list(range(plan.seeds))] if plan.seeds > 1 else [[0]]
        for seeds in groups:
            if time.monotonic() > plan.deadline:
                content["left_out"].append(f"training of {category.name}, seeds {seeds}")
                continue
            content["training"] += _train(plan, category, seeds)
            write()


def _train(plan: Trainings, category: Path, seeds: list[int]) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        outs = [Path(folder) / f"{category.name}_{seed}.pt" for seed in seeds]
        start = time.perf_counter()
        runs = [_start(plan, category, *pair) for pair in zip(seeds, outs, strict=True)]
        with ThreadPoolExecutor(len(runs)) as pool:
            ended = list(pool.map(lambda run: _finish(run, plan.deadline, start), runs))
            accuracies = pool.map(lambda out: _accuracy(plan, out, category), outs)
            found = []
            for seed, out, end, accuracy in zip(seeds, outs, ended, accuracies, strict=True):
                result = {
                    "category": category.name,
                    "seed": seed,
                    "epochs": plan.epochs,
                    "side_by_side": len(seeds),
                }
                if "error" not in end:
                    result |= _epochs(out) | accuracy
                found.append(result | end)
                note(f"trained {found[-1]}")
        return found


def _start(plan: Trainings, category: Path, seed: int, out: Path) -> subprocess.Popen[bytes]:
    arguments = ["--data", plan.data, "--category", category.name, "--out", out, "--seed", seed]
    arguments += ["--epochs", plan.epochs, "--device", plan.device]
    if plan.teacher_weights is not None:
        arguments += ["--teacher-weights", plan.teacher_weights]
    command = [sys.executable, "-c", PROGRAM, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def _finish(run: subprocess.Popen[bytes], deadline: float, start: float) -> dict[str, Any]:
    try:
        _, said = run.communicate(timeout=max(deadline - time.monotonic(), 1))
    except subprocess.TimeoutExpired:
        run.kill()
        run.communicate()
        return {"error": "not done when the time was up"}
    if run.returncode < 0:
        return {"error": f"died of {signal.Signals(-run.returncode).name}"}
    if run.returncode:
        lines = said.decode(errors="replace").strip().splitlines()
        return {"error": lines[-1] if lines else f"ended with {run.returncode}"}
    return {"seconds": time.perf_counter() - start}


def _epochs(out: Path) -> dict[str, Any]:
    lines = [json.loads(line) for line in log_path(out).read_text().splitlines()]
    by_stage: Counter[str] = Counter()
    for line in lines:
        by_stage.update(line["seconds_by_stage"])
    return {
        "epoch_seconds": sum(line["seconds"] for line in lines),
        "epoch_seconds_by_stage": dict(by_stage),
    }


def _accuracy(plan: Trainings, out: Path, category: Path) -> dict[str, Any]:
    """Measure in a process of its own for as long as there is time; nothing without a model."""
    if not out.is_file():
        return {}
    request = {"do": "accuracy", "checkpoint": str(out), "category": str(category)}
    with WorkerProcess(f"accuracy of {out.name}", out.parent / "cache") as worker:
        try:
            return worker.ask(request, plan.deadline - time.monotonic())
        except BackendError as error:
            return {"accuracy_error": str(error)}
