"""Accuracy as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from stpm.benchmarks.measure.detection import Share, detections
from stpm.benchmarks.records.accuracy import METRICS, AccuracyRecord, Interval, Row, Summary
from stpm.benchmarks.records.paper import mean_figures, reference_figures
from stpm.benchmarks.records.studies import AblationLine
from stpm.benchmarks.report.tables import Table


def accuracy_tables(content: AccuracyRecord) -> list[Table]:
    """Tabulate a result of kind "accuracy": each category, its kinds of defect, the means."""
    tables = []
    for category, rows in content["categories"].items():
        tables += [_detection_table(category, rows)]
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


def ablation_tables(lines: Sequence[AblationLine]) -> list[Table]:
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


def one_engine_each(rows: Sequence[Row]) -> list[Row]:
    """Return the first row of each bundle, or of each checkpoint where there is no bundle.

    The scores of other engines differ by less than the width of a line.
    """
    bundles = [row for row in rows if row["calibration"]] or rows
    first: dict[str, Row] = {}
    for row in bundles:
        first.setdefault(row["name"], row)
    return list(first.values())


def _detection_table(category: str, rows: Sequence[Row]) -> Table:
    title = f"{category}: defects found at given false-alarm rates, 95% intervals"
    table = Table(
        title, ("", "threshold", "false alarms", "defective parts found", "regions found")
    )
    for row in one_engine_each(rows):
        for found in detections(row):
            shares = (found.false_alarms, found.found, found.regions)
            label = f"{row['name']}\n{found.at}"
            table.add(label, f"{found.threshold:.4g}", *map(_share, shares))
    return table


def _share(share: Share) -> str:
    if not share.of:
        return ""
    low, high = share.interval
    return f"{share.count / share.of:.1%}\n{share}, {low:.0%}\u2013{high:.0%}"


def _category_table(category: str, rows: Sequence[Row], seeds: Sequence[Summary]) -> Table:
    title = f"{category}, {rows[0]['image_count']} test images, 95% intervals"
    table = Table(title, ("", *METRICS.values()))
    for row in rows:
        table.add(_label(row), *_cells(row["overall"], row["intervals"]))
    for summary in seeds:
        label = f"mean of {summary['count']}\n{summary['engine']} {summary['precision']}"
        cells = _cells(summary["mean"])
        deviations = [summary["deviation"][name] for name in METRICS]
        both = zip(cells, deviations, strict=True)
        table.add(label, *("" if d is None else f"{cell}\n± {d:.4f}" for cell, d in both))
    for source, figures in reference_figures(category).items():
        table.add(source, *_cells(figures), published=True)
    return table


def _kind_table(category: str, row: Row) -> Table:
    table = Table(
        f"{category} by kind of defect, {_label(row).replace(chr(10), ' ')}",
        ("", *METRICS.values()),
    )
    for kind, metrics in row["by_kind"].items():
        table.add(kind, *_cells(metrics))
    return table


def _label(row: Row) -> str:
    return f"{row['name']}\n{row['engine']} {row['precision']}"


def _cells(
    figures: Mapping[str, float | None], intervals: Mapping[str, Interval] | None = None
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
