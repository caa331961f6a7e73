"""What is measured on a GPU, the most important first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stpm.benchmarks.measure.gpu.contenders import COMPILED, EAGER, OURS

COMPILED_BATCHES = (1, 64)
"""torch.compile takes half a minute for each batch size."""
BARS = {
    "gpu_ms": 0.21,
    "host_ms": 0.30,
    "images_per_second": 33_000,
    "host_scores_per_second": 25_000,
    "over_eager_fp32": 10,
    "first_score_s": 20,
    "later_score_s": 6,
    "size_512_over_4_times_256": 1.1,
    "training_epochs_s": 5,
    "training_s": 15,
    "three_trainings_over_one": 2,
}
"""What an H100 or H200 is to reach in FP16 at 256x256, and the first category's training there.

At batch 1 the GPU alone and from host to host; the best batch on the device and, with scores
alone, from host to host; at batch 1 on the device against torch's FP32; opened and scored once
with an empty cache and with a full one; the time of the largest common batch at 512x512; the
epochs of one seed, the same from start to end, and the last of three seeds side by side.
"""


@dataclass(frozen=True)
class Case:
    """A batch to time; `mode` is a field of `Contender`: maps, scores or device."""

    size: int
    batch: int
    mode: str
    contenders: tuple[str, ...]


def cases(sizes: Sequence[int], batches: Sequence[int], contenders: Sequence[str]) -> list[Case]:
    """List the cases: batch 1 and the largest ones first, the other batches last."""
    ordered = sorted(batches, key=lambda n: (n != min(batches), n not in sorted(batches)[-3:], n))
    found = []
    for size in sizes:
        for batch in ordered:
            able = tuple(c for c in contenders if c != COMPILED or batch in COMPILED_BATCHES)
            found += [Case(size, batch, mode, able) for mode in ("device", "maps", "scores")]
    return found


def bars(content: dict[str, Any]) -> dict[str, dict[str, float | None]]:
    """Hold what was measured against `BARS`; what was not is None."""

    def median(contender: str, batch: int, mode: str, of: str = "seconds", size: int = 256) -> Any:
        for case in content["cases"]:
            key = (case["contender"], case["batch"], case["mode"], case["size"])
            if key == (contender, batch, mode, size) and case.get(of):
                return float(np.median(case[of]))
        return None

    ours = [c for c in content["cases"] if c["contender"] == OURS and c["size"] == 256]
    gpu = {c["batch"]: float(np.median(c["gpu_seconds"])) for c in ours if c.get("gpu_seconds")}
    twice = [n for n in gpu if median(OURS, n, "device", "gpu_seconds", 512)]
    sustained = content.get("sustained", {}).get(OURS, {}).get("scores", {})
    eager = median(EAGER, 1, "device")
    starts = content.get("starts", {})
    reached = {
        "gpu_ms": _scaled(gpu.get(1), 1e3),
        "host_ms": _scaled(median(OURS, 1, "maps"), 1e3),
        "images_per_second": max((n / s for n, s in gpu.items()), default=None),
        "host_scores_per_second": _middle(sustained.get("images_per_second")),
        "over_eager_fp32": eager / gpu[1] if eager and 1 in gpu else None,
        "first_score_s": starts.get("empty cache", {}).get("first_score_s"),
        "later_score_s": starts.get("full cache", {}).get("first_score_s"),
        "size_512_over_4_times_256": (
            median(OURS, max(twice), "device", "gpu_seconds", 512) / (4 * gpu[max(twice)])
            if twice
            else None
        ),
    } | _trained(content.get("training", []))
    return {name: {"bar": bar, "reached": reached[name]} for name, bar in BARS.items()}


def _trained(training: Sequence[dict[str, Any]]) -> dict[str, float | None]:
    of_first = [t for t in training if t["category"] == training[0]["category"] and "seconds" in t]
    alone = next((t for t in of_first if t["side_by_side"] == 1), None)
    three = [t["seconds"] for t in of_first if t["side_by_side"] == 3]
    return {
        "training_epochs_s": alone["epoch_seconds"] if alone else None,
        "training_s": alone["seconds"] if alone else None,
        "three_trainings_over_one": (
            max(three) / alone["seconds"] if alone and len(three) == 3 else None
        ),
    }


def _scaled(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor


def _middle(values: Sequence[float] | None) -> float | None:
    return float(np.median(values)) if values else None
