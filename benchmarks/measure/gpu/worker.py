"""A contender, or the work around it, in a process that answers: a line of JSON each way."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

WARM_UP = 3
"""Runs before a case is timed for the first time."""
SUSTAINED_S = 3.0
"""Seconds of the same work after which the power that the GPU tells is that of this work."""
AROUND = ("prepare", "roofline", "accuracy")
"""Functions of `stpm.benchmarks.measure.gpu.preparation`."""


class Worker:
    """The opened contender and the images of its cases."""

    def __init__(self) -> None:
        self._contender: Any = None
        self._device = "cuda"
        self._frames: Any = None
        self._warm: set[tuple[int, str]] = set()

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Do what a request's `do` names: open, check, time, sustain, or one of `AROUND`."""
        work: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
            "open": self._open,
            "check": self._check,
            "time": self._time,
            "sustain": self._sustain,
        }
        name = request.pop("do")
        if name in AROUND:
            from stpm.benchmarks.measure.gpu import preparation

            found: dict[str, Any] = getattr(preparation, name)(request)
            return found
        return work[name](request)

    def _open(self, request: dict[str, Any]) -> dict[str, Any]:
        """Open the contender and score one image; seconds count from the process's start."""
        import numpy as np

        from stpm.benchmarks.measure.gpu.contenders import open_contender

        self._device = request["device"]
        self._frames = np.load(request["frames"])
        self._contender = open_contender(
            request["contender"],
            Path(request["checkpoint"]),
            request["size"],
            Path(request["onnx"]),
            request["batch"],
            self._device,
        )
        opened = time.time() - request["started"]
        self._contender.maps(self._frames[:1])
        return {
            "opened_s": opened,
            "first_score_s": time.time() - request["started"],
            "precision": self._contender.precision,
            "built_with": self._contender.built_with,
            "modes": [m for m in ("maps", "scores", "device") if getattr(self._contender, m)],
        }

    def _check(self, request: dict[str, Any]) -> dict[str, Any]:
        """Compare with FP32 torch's maps and scores of a bundle's real images."""
        from dataclasses import asdict

        from stpm.runtime.bundle.archive import Bundle
        from stpm.runtime.bundle.parity import TOLERANCES, compare

        golden = Bundle(request["bundle"]).golden()
        outputs = self._contender.maps(golden.images)
        parity = compare(golden.anomaly_maps, golden.pred_scores, *outputs)
        return asdict(parity) | {"holds": parity.holds(TOLERANCES[self._contender.precision])}

    def _time(self, request: dict[str, Any]) -> dict[str, Any]:
        """Time runs of a batch: the caller's seconds, and the GPU's own where it can be asked."""
        work, argument = self._case(request["batch"], request["mode"])
        replay = self._contender.replay_seconds if request["mode"] == "device" else None
        seconds, gpu_seconds = [], []
        for _ in range(request["runs"]):
            start = time.perf_counter()
            work(argument)
            seconds.append(time.perf_counter() - start)
            if replay is not None:
                gpu_seconds.append(replay(request["batch"]))
        return {"seconds": seconds, "gpu_seconds": gpu_seconds} | _peak_memory()

    def _sustain(self, request: dict[str, Any]) -> dict[str, Any]:
        """Score many images in one call, repeatedly, and read power and memory meanwhile."""
        from stpm.benchmarks.measure.gpu.nvml import power_w, used_bytes

        work, argument = self._case(request["batch"], request["mode"])
        rates: list[float] = []
        powers: list[float | None] = []
        begun = time.perf_counter()
        while len(rates) < request["runs"] or time.perf_counter() - begun < SUSTAINED_S:
            start = time.perf_counter()
            work(argument)
            rates.append(len(argument) / (time.perf_counter() - start))
        for _ in range(request["runs"]):
            work(argument)
            powers.append(power_w())
        return {"images_per_second": rates, "power_w": powers, "used_bytes": used_bytes()}

    def _case(self, batch: int, mode: str) -> tuple[Callable[[Any], Any], Any]:
        import numpy as np

        work: Callable[[Any], Any] = getattr(self._contender, mode)
        argument: Any = np.resize(self._frames, (batch, *self._frames.shape[1:]))
        if mode == "device":
            import torch

            argument = torch.from_numpy(argument).to(self._device)
        if (batch, mode) not in self._warm:
            for _ in range(WARM_UP):
                work(argument)
            self._warm.add((batch, mode))
        return work, argument


def _peak_memory() -> dict[str, int]:
    """Return the most memory of the GPU that torch held in this process, where torch is used."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return {}
    return {"peak_bytes": torch.cuda.max_memory_reserved()}


def main() -> None:
    """Answer requests until there are none; what fails is told as `error`."""
    # Libraries print: what they say goes to stderr, answers to what was stdout.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    worker = Worker()
    for line in sys.stdin:
        try:
            answer = worker.answer(json.loads(line))
        except Exception as error:
            # Contenders' errors share no class but Exception.
            answer = {"error": " ".join(str(error).split())[:500] or type(error).__name__}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
