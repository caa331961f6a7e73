"""A plan as tables."""

from __future__ import annotations

from stpm.benchmarks.records.plan import Arrangement, PlanRecord
from stpm.benchmarks.report.tables import Table


def plan_tables(content: PlanRecord) -> list[Table]:
    """Tabulate a result of kind "plan": the arrangements, and what was chosen."""
    height, width = content["image_size"]
    table = Table(
        f"cameras: {content['cameras']} of {height}x{width}, a frame of each every "
        f"{content['cycle_time_ms']:g} ms",
        ("", "frames/s", "p50 ms", "p99 ms", "left ms", "processors", "holds"),
    )
    for arrangement in content["arrangements"]:
        engine = f"{arrangement['engine']}, threads {arrangement['threads']}"
        table.add(f"{arrangement['bundle']}\n{engine}", *_cells(arrangement, content))
    return [table, _choice(content)]


def _cells(arrangement: Arrangement, content: PlanRecord) -> list[str]:
    rate, cycle_ms = arrangement["frames_per_second"], content["cycle_time_ms"]
    latency, cores = arrangement["latency_ms"], arrangement["cores"]
    if latency is None or cores is None:
        return [f"{rate:.1f}", "", "", "", "", "too slow"]
    left = cycle_ms - latency["p99"]
    p50, p99 = f"{latency['p50']:.1f}", f"{latency['p99']:.1f}"
    return [f"{rate:.1f}", p50, p99, f"{left:.1f}", f"{cores:.2f}", "yes" if left >= 0 else "no"]


def _choice(content: PlanRecord) -> Table:
    table = Table("the plan", ("", "found"))
    table.add("holds" if content["chosen"] else "nearest", content["nearest"])
    if content["left_ms"] is not None and content["left_cores"] is not None:
        table.add("left of the cycle", f"{content['left_ms']:.0f} ms after p99")
        table.add("left of the cores", f"{content['left_cores']:.2f} of {content['cores']}")
    table.add("other programs", f"used {content['other_cores']:.2f} of {content['cores']}")
    if content["station"]:
        table.add("command", content["station"])
    for number, sentence in enumerate(content["advice"]):
        table.add("" if number else "to try", sentence)
    for one in content["left_out"]:
        table.add(f"left out: {one['name']}", one["reason"])
    return table
