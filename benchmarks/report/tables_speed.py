"""Times as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from stpm.benchmarks.records.paper import latency_figures
from stpm.benchmarks.records.speed import Case, LatencyRecord, PeersRecord
from stpm.benchmarks.report.tables import Table

if TYPE_CHECKING:
    from stpm.benchmarks.report.compare import Comparison

PEER_METRICS: tuple[Literal["image_auroc", "pixel_auroc", "aupro"], ...] = (
    "image_auroc",
    "pixel_auroc",
    "aupro",
)
REASON_WIDTH = 60
STAGES = ("decode", "resize", "upload", "engine", "download", "decision")


def latency_tables(content: LatencyRecord) -> list[Table]:
    """Tabulate a result of kind "latency": scenarios, stages, processes, the papers' times."""
    columns = ("", "p50 ms", "p90 ms", "p99 ms", "max ms", "images /s", "steady")
    scenarios = Table("latency of one query, from frame in memory to decision", columns)
    present = [s for s in STAGES if any(s in case["stages_ms"] for case in content["cases"])]
    stages = Table("one image by stage, p50 in ms", ("", *present))
    for case in content["cases"]:
        times = [f"{case['latency_ms'][p]:.2f}" for p in ("p50", "p90", "p99", "max")]
        flags = "\n".join(case["steadiness"]["flags"]) or "yes"
        scenarios.add(_case_label(case), *times, f"{case['images_per_second']:.1f}", flags)
        if case["scenario"] == "single_stream" and case["batch"] == 1:
            medians = [case["stages_ms"].get(stage) for stage in present]
            cells = ("" if median is None else f"{median['p50']:.2f}" for median in medians)
            stages.add(_case_label(case), *cells)
    processes = Table(
        "fresh process",
        ("", "import ms", "open ms", "of which engine ms", "first image ms", "peak MiB"),
    )
    for row in content["footprints"]:
        figures = (
            row["import_ms"],
            row["open_ms"],
            row["build_ms"],
            row["first_image_ms"],
            row["peak_memory_mib"],
        )
        cells = ("" if figure is None else f"{figure:.0f}" for figure in figures)
        processes.add(
            f"{row['bundle']}\n{row['engine']}, threads {row['threads'] or 'auto'}", *cells
        )
    return [scenarios, stages, processes, _paper_times(content)]


def peers_tables(content: PeersRecord) -> list[Table]:
    """Tabulate a result of kind "peers": times and agreement, the papers' times, the methods."""
    height, width = content["image_size"]
    columns = (
        *("", "p50 ms", "p99 ms", "ratio", "same maps", "map diff."),
        *("AUROC", "pixel AUROC", "AUPRO"),
    )
    table = Table(f"one {height}x{width} frame in memory to its map", columns)
    times = Table(
        "the paper's times of one 256x256 image",
        ("", "ms", "relative to STPM", "relative to the first, here"),
    )
    for row in content["peers"]:
        ratio, latency = row["ratio"], row["latency_ms"]
        interval = f"{ratio['low']:.2f}\u2013{ratio['high']:.2f}"
        same = "yes" if row["correct"] else "NO"
        flags = ", ".join(row["steadiness"]["flags"])
        table.add(
            f"{row['name']}, {row['precision']}" + (f"\n{flags}" if flags else ""),
            f"{latency['p50']:.1f}",
            f"{latency['p99']:.1f}",
            f"{ratio['median']:.2f}\n{interval}",
            same,
            f"{row['agreement']['map_difference']:.1e}",
            *("" if row.get(m) is None else f"{row[m]:.4f}" for m in PEER_METRICS),
        )
    for left in content["left_out"]:
        table.add(f"{left['name']}\nleft out: {left['reason'][:REASON_WIDTH]}")
    for method, milliseconds in content["paper"].items():
        share = f"{milliseconds / content['paper']['STPM']:.0f}"
        found = method_ratios(content, method.lower())
        measured = "\n".join(
            f"{ratio:.1f}" + (f" {bundle}" if len(found) > 1 else "")
            for bundle, ratio in found.items()
        )
        times.add(f"{method}, RTX 2080 Ti", f"{milliseconds:g}", share, measured, published=True)
    return [found for found in (table, times, _methods_table(content)) if found.rows]


def method_ratios(content: PeersRecord, method: str) -> dict[str, float]:
    """Return, for each bundle of a method, its fastest engine's time over the reference's."""
    ratios: dict[str, float] = {}
    for row in content["peers"]:
        if row.get("method") == method:
            bundle, ratio = row["name"].split(" ")[0], row["ratio"]["median"]
            ratios[bundle] = min(ratio, ratios.get(bundle, ratio))
    return ratios


def comparison_table(comparisons: Sequence[Comparison]) -> Table:
    """Tabulate what `stpm.benchmarks.report.compare` found."""
    table = Table("B compared with A", ("", "quantity", "value", "95% interval", "verdict"))
    for found in comparisons:
        interval = f"{found.low:.3f} to {found.high:.3f}"
        table.add(found.name, found.quantity, f"{found.value:.3f}", interval, found.verdict)
    return table


def _methods_table(content: PeersRecord) -> Table:
    """Tabulate how each method was set up and trained; empty where there is but one."""
    table = Table("settings and training of the methods", ("", "settings", "training"))
    rows = {row["name"].split(" ")[0]: row for row in content["peers"] if row.get("config")}
    if len({row["method"] for row in rows.values()}) < 2:
        return table
    for bundle, row in rows.items():
        config, training = row.get("config") or {}, row.get("training") or {}
        shown = {k: v for k, v in config.items() if k not in ("method", "input_size")}
        options = training.get("options", {})
        trained = {"epochs": training.get("epochs_done")}
        trained |= {k: options.get(k) for k in ("train_share", "learning_rate", "batch_size")}
        known = {k: v for k, v in trained.items() if v is not None}
        table.add(bundle, _listed(shown), _listed(known) or "unknown")
    return table


def _listed(values: Mapping[str, Any]) -> str:
    return "\n".join(
        f"{name.replace('_', ' ')} "
        f"{','.join(map(str, value)) if isinstance(value, list | tuple) else value}"
        for name, value in values.items()
    )


def _paper_times(content: LatencyRecord) -> Table:
    table = Table("the paper's times for one 256x256 image, and rates", ("", "ms", "hardware"))
    for method, milliseconds in latency_figures().items():
        table.add(f"{method}, paper", f"{milliseconds:g}", "RTX 2080 Ti", published=True)
    processor = content["environment"]["processor"]
    here = f"{processor['usable_cores']} x {processor['model']}"
    for case in content["cases"]:
        if case["scenario"] == "single_stream" and case["batch"] == 1:
            median = f"{case['latency_ms']['p50']:.1f}"
            table.add(_case_label(case), median, here)
    for name, rate in content["rates"].items():
        gflop, memory = rate["fp32_gflop_per_second"], rate["memory_gb_per_second"]
        table.add(name, "", f"{gflop:.0f} GFLOP/s FP32, {memory:.0f} GB/s\n{rate['source']}")
    return table


def _case_label(case: Case) -> str:
    height, width = case["image_size"]
    details = [case["scenario"].replace("_", " "), f"{height}x{width}"]
    details += [f"{key} {case[key]}" for key in ("batch", "streams") if case[key] > 1]
    details += [f"threads {case['threads']}"] if case["threads"] else []
    return f"{case['bundle']} {case['engine']}\n{', '.join(details)}"
