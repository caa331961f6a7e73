"""The figures of result files as tables, for the terminal, Markdown and HTML alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from stpm.benchmarks.records.paper import latency_figures, mean_figures, reference_figures

if TYPE_CHECKING:
    from stpm.benchmarks.report.compare import Comparison

METRICS = {
    "image_auroc": "image AUROC",
    "pixel_auroc": "pixel AUROC",
    "aupro": "AUPRO",
    "pro_rescaled": "rescaled PRO",
}
"""Titles by the names in `stpm.train.metrics.Metrics`."""

PEER_METRICS = ("image_auroc", "pixel_auroc", "aupro")
NUMBER_WIDTH = 10
"""Characters; a column with longer cells holds text."""
LABEL_WIDTH = 16
REASON_WIDTH = 60
STAGES = ("decode", "resize", "upload", "engine", "download", "decision")


@dataclass(frozen=True)
class Row:
    """A line of a table; `published` ones stand beside what was measured."""

    cells: tuple[str, ...]
    published: bool = False


@dataclass(frozen=True)
class Table:
    """A table of text; a cell's second line, after a line break, qualifies its first."""

    title: str
    columns: tuple[str, ...]
    rows: list[Row] = field(default_factory=list)

    def add(self, *cells: str, published: bool = False) -> None:
        """Append a row, filled up with empty cells."""
        missing = len(self.columns) - len(cells)
        self.rows.append(Row((*cells, *[""] * missing), published))


def print_tables(tables: Sequence[Table]) -> None:
    """Print tables on a terminal."""
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table as RichTable

    console = Console()
    for table in tables:
        shown = RichTable(title=table.title, box=SIMPLE, pad_edge=False, collapse_padding=True)
        for i, column in enumerate(table.columns):
            cells = [line for row in table.rows for line in row.cells[i].splitlines()]
            is_text = max(map(len, cells), default=0) > NUMBER_WIDTH
            shown.add_column(
                column if is_text else column.replace(" ", "\n", 1),
                justify="left" if is_text else "right",
                no_wrap=not is_text,
                min_width=LABEL_WIDTH if i == 0 else None,
            )
        for row in table.rows:
            shown.add_row(*row.cells, style="dim" if row.published else None)
        console.print(shown)


def accuracy_tables(content: Mapping[str, Any]) -> list[Table]:
    """Tabulate a result of kind "accuracy": each category, its kinds of defect, the means."""
    tables = []
    for category, rows in content["categories"].items():
        tables += [_category_table(category, rows, content["seeds"].get(category, []))]
        tables += [_kind_table(category, rows[0])] if rows[0]["by_kind"] else []
    if content["means"]:
        table = Table("mean over categories", ("", "categories", *METRICS.values()))
        for mean in content["means"]:
            label = f"{mean['engine']} {mean['precision']}"
            table.add(label, str(mean["count"]), *_cells(mean["mean"]))
        for source, figures in mean_figures().items():
            table.add(source, "15", *_cells(figures), published=True)
        tables.append(table)
    return tables


def latency_tables(content: Mapping[str, Any]) -> list[Table]:
    """Tabulate a result of kind "latency": scenarios, stages, processes, the papers' times."""
    columns = ("", "p50 ms", "p90 ms", "p99 ms", "max ms", "images /s", "steady")
    scenarios = Table("latency of a query, from frame in memory to decision", columns)
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
        "a fresh process",
        ("", "import ms", "open ms", "of which engine ms", "first image ms", "peak MiB"),
    )
    for row in content["footprints"]:
        names = ("import_ms", "open_ms", "build_ms", "first_image_ms", "peak_memory_mib")
        cells = ("" if row[name] is None else f"{row[name]:.0f}" for name in names)
        processes.add(
            f"{row['bundle']}\n{row['engine']}, threads {row['threads'] or 'auto'}", *cells
        )
    return [scenarios, stages, processes, _paper_times(content)]


def peers_tables(content: Mapping[str, Any]) -> list[Table]:
    """Tabulate a result of kind "peers": times and agreement, the papers' times, the methods."""
    height, width = content["image_size"]
    columns = (
        *("", "p50 ms", "p99 ms", "ratio", "same maps", "map diff."),
        *("AUROC", "pixel AUROC", "AUPRO"),
    )
    table = Table(f"one {height}x{width} frame in memory to its map", columns)
    times = Table(
        "the paper's times of one 256x256 image",
        ("", "ms", "times STPM's", "times the first's here"),
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
    for row in content["left_out"]:
        table.add(f"{row['name']}\nleft out: {row['reason'][:REASON_WIDTH]}")
    for method, milliseconds in content["paper"].items():
        share = f"{milliseconds / content['paper']['STPM']:.0f}"
        found = method_ratios(content, method.lower())
        measured = "\n".join(
            f"{ratio:.1f}" + (f" {bundle}" if len(found) > 1 else "")
            for bundle, ratio in found.items()
        )
        times.add(f"{method}, RTX 2080 Ti", f"{milliseconds:g}", share, measured, published=True)
    return [found for found in (table, times, _methods_table(content)) if found.rows]


def method_ratios(content: Mapping[str, Any], method: str) -> dict[str, float]:
    """Return, for each bundle of a method, its fastest engine's time over the reference's."""
    ratios: dict[str, float] = {}
    for row in content["peers"]:
        if row.get("method") == method:
            bundle, ratio = row["name"].split(" ")[0], row["ratio"]["median"]
            ratios[bundle] = min(ratio, ratios.get(bundle, ratio))
    return ratios


def _methods_table(content: Mapping[str, Any]) -> Table:
    """Tabulate how each method was set up and trained; empty where there is but one."""
    table = Table("the methods' settings and training", ("", "settings", "training"))
    rows = {row["name"].split(" ")[0]: row for row in content["peers"] if row.get("config")}
    if len({row["method"] for row in rows.values()}) < 2:
        return table
    for bundle, row in rows.items():
        shown = {k: v for k, v in row["config"].items() if k not in ("method", "input_size")}
        options = row["training"].get("options", {})
        trained = {"epochs": row["training"].get("epochs_done")}
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


def comparison_table(comparisons: Sequence[Comparison]) -> Table:
    """Tabulate what `stpm.benchmarks.report.compare` found."""
    table = Table("B against A", ("", "quantity", "value", "95% interval", "verdict"))
    for found in comparisons:
        interval = f"{found.low:.3f} to {found.high:.3f}"
        table.add(found.name, found.quantity, f"{found.value:.3f}", interval, found.verdict)
    return table


def _paper_times(content: Mapping[str, Any]) -> Table:
    table = Table("the paper's times of one 256x256 image, and rates", ("", "ms", "hardware"))
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


def _case_label(case: Mapping[str, Any]) -> str:
    height, width = case["image_size"]
    details = [case["scenario"].replace("_", " "), f"{height}x{width}"]
    details += [f"{key} {case[key]}" for key in ("batch", "streams") if case[key] > 1]
    details += [f"threads {case['threads']}"] if case["threads"] else []
    return f"{case['bundle']} {case['engine']}\n{', '.join(details)}"


def _category_table(
    category: str, rows: Sequence[Mapping[str, Any]], seeds: Sequence[Mapping[str, Any]]
) -> Table:
    title = f"{category}, {rows[0]['image_count']} test images, 95% intervals"
    table = Table(title, ("", *METRICS.values(), "false alarms", "found"))
    for row in rows:
        rates = row["decisions"] or {}
        shares = ["" if rate is None else f"{rate:.1%}" for rate in rates.values()]
        table.add(_label(row), *_cells(row["overall"], row["intervals"]), *shares)
    for summary in seeds:
        label = f"mean of {summary['count']}\n{summary['engine']} {summary['precision']}"
        cells = _cells(summary["mean"])
        deviations = [summary["deviation"][name] for name in METRICS]
        both = zip(cells, deviations, strict=True)
        table.add(label, *("" if d is None else f"{cell}\n± {d:.4f}" for cell, d in both))
    for source, figures in reference_figures(category).items():
        table.add(source, *_cells(figures), published=True)
    return table


def _kind_table(category: str, row: Mapping[str, Any]) -> Table:
    table = Table(
        f"{category} by kind of defect, {_label(row).replace(chr(10), ' ')}",
        ("", *METRICS.values()),
    )
    for kind, metrics in row["by_kind"].items():
        table.add(kind, *_cells(metrics))
    return table


def _label(row: Mapping[str, Any]) -> str:
    return f"{row['name']}\n{row['engine']} {row['precision']}"


def _cells(
    figures: Mapping[str, float | None], intervals: Mapping[str, Sequence[float]] | None = None
) -> list[str]:
    cells = []
    for name in METRICS:
        value = figures.get(name)
        cell = "" if value is None else f"{value:.4f}"
        if intervals and name in intervals:
            low, high = intervals[name]
            cell += f"\n{_fraction(low)}\u2013{_fraction(high)}"
        cells.append(cell)
    return cells


def _fraction(value: float) -> str:
    """Write a value in [0, 1] without its leading zero, to keep within 80 columns."""
    text = f"{value:.3f}"
    return "1" if text == "1.000" else text.removeprefix("0")


def ablation_tables(lines: Sequence[Mapping[str, Any]]) -> list[Table]:
    """Tabulate an axis a table, a run a row, in the order of the lines."""
    tables: dict[str, Table] = {}
    for line in lines:
        axis = str(line["axis"])
        table = tables.setdefault(
            axis, Table(f"ablation: {axis}", ("", "category", *METRICS.values(), "epochs", "seed"))
        )
        values = [line["metrics"].get(name) for name in METRICS]
        cells = ("" if value is None else f"{value:.4f}" for value in values)
        ends = (str(line["epochs"]), str(line["seed"]))
        table.add(str(line["cell"]), str(line["category"]), *cells, *ends)
    return list(tables.values())
