"""A GPU's measurement as tables."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Literal

from stpm.benchmarks.records.device import DeviceRecord, Training
from stpm.benchmarks.report.tables import Table

ROWS: tuple[tuple[str, Literal["seconds", "gpu_seconds"], str], ...] = (
    ("device", "gpu_seconds", "on the GPU"),
    ("device", "seconds", "on the GPU, caller's time"),
    ("scores", "seconds", "host to host, scores only"),
    ("maps", "seconds", "host to host, with maps"),
)
"""A contender's rows: a case's `mode`, which of its times, and the row's name."""
REASON_WIDTH = 100


def device_tables(content: DeviceRecord) -> list[Table]:
    """Tabulate a result of kind "device": times by size, targets, trainings."""
    sizes = dict.fromkeys(case["size"] for case in content["cases"])
    tables = [_times(content, size) for size in sizes]
    bars = Table("targets", ("", "target", "reached"))
    for name, bar in content["bars"].items():
        reached = "" if bar["reached"] is None else f"{bar['reached']:.4g}"
        bars.add(name.replace("_", " "), f"{bar['bar']:g}", reached)
    correctness = Table(
        "golden images against FP32 torch", ("", "map diff.", "score diff.", "same")
    )
    for contender, found in content["correctness"].items():
        if "error" in found:
            correctness.add(f"{contender}\n{found['error'][:REASON_WIDTH]}")
        else:
            differences = (found["map_difference"], found["score_difference"])
            same = "yes" if found["holds"] else "NO"
            correctness.add(contender, *(f"{value:.1e}" for value in differences), same)
    missing = Table("not measured", ("", "reason"))
    for contender, reason in content["refused"].items():
        missing.add(contender, reason[:REASON_WIDTH])
    for case in content["left_out"]:
        missing.add(case, "out of time")
    found_tables = [*tables, correctness, bars, _trainings(content.get("training", [])), missing]
    return [table for table in found_tables if table.rows]


def _times(content: DeviceRecord, size: int) -> Table:
    cases = [case for case in content["cases"] if case["size"] == size]
    batches = sorted({case["batch"] for case in cases})
    columns = tuple(f"batch {batch}" for batch in batches)
    table = Table(f"{size}x{size}, medians in ms", ("", *columns))
    for contender in dict.fromkeys(case["contender"] for case in cases):
        own = [case for case in cases if case["contender"] == contender]
        for mode, key, words in ROWS:
            timed = [case for case in own if case["mode"] == mode and case[key]]
            medians = {case["batch"]: median(case[key]) * 1e3 for case in timed}
            if medians:
                cells = (f"{medians[b]:.4g}" if b in medians else "" for b in batches)
                table.add(f"{contender}\n{words}", *cells)
    for roof in content.get("roofline", []):
        if roof["size"] == size:
            least = roof["least_seconds"]
            table.add("roofline", *(f"{least[str(b)] * 1e3:.4g}" for b in batches), published=True)
    return table


def _trainings(trainings: Sequence[Training]) -> Table:
    columns = ("", "in parallel", "training s", "total s", "image AUROC", "pixel AUROC", "AUPRO")
    table = Table("trainings", columns)
    for found in trainings:
        label = f"{found['category']}, seed {found['seed']}, {found['epochs']} epochs"
        reason = found.get("error") or found.get("accuracy_error")
        seconds = (found.get("epoch_seconds"), found.get("seconds"))
        metrics = (found.get("image_auroc"), found.get("pixel_auroc"), found.get("aupro"))
        table.add(
            f"{label}\n{reason}" if reason else label,
            str(found["side_by_side"]),
            *("" if value is None else f"{value:.1f}" for value in seconds),
            *("" if value is None else f"{value:.4f}" for value in metrics),
        )
    return table
