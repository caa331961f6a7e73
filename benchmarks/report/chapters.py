"""The chapters of a report: the tables and figures of each kind of result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from stpm.benchmarks.records.accuracy import AccuracyRecord
from stpm.benchmarks.records.result_file import Record
from stpm.benchmarks.records.studies import AblationLine
from stpm.benchmarks.report.plots import Figure, curves, histogram
from stpm.benchmarks.report.plots_drift import drift_figures
from stpm.benchmarks.report.plots_time import latency_figures, ratio_figure
from stpm.benchmarks.report.tables import Table
from stpm.benchmarks.report.tables_accuracy import ablation_tables, accuracy_tables, one_engine_each
from stpm.benchmarks.report.tables_device import device_tables
from stpm.benchmarks.report.tables_drift import drift_tables
from stpm.benchmarks.report.tables_fleet import fleet_tables, scaling_tables
from stpm.benchmarks.report.tables_live import live_tables
from stpm.benchmarks.report.tables_plan import plan_tables
from stpm.benchmarks.report.tables_serving import serving_tables
from stpm.benchmarks.report.tables_shadow import shadow_tables
from stpm.benchmarks.report.tables_speed import latency_tables, peers_tables
from stpm.benchmarks.report.tables_studies import (
    alignment_tables,
    graph_ablation_tables,
    image_scores_tables,
    libstpm_tables,
    low_precision_tables,
    training_speed_tables,
)
from stpm.benchmarks.report.tables_tiles import tiles_tables

TITLES = {
    "accuracy": "Accuracy",
    "latency": "Speed",
    "peers": "Other programs",
    "tiles": "Large images",
    "device": "On a GPU",
    "low_precision": "Low precision",
    "libstpm": "The C library",
    "training_speed": "Training",
    "serving": "Serving",
    "fleet": "Fleet",
    "live": "A station under load",
    "plan": "Cycle time",
    "shadow": "Another bundle in the shadow",
    "drift": "Drift",
    "fleet_scaling": "Scoring an archive",
    "alignment": "Aligned parts",
    "graph_ablation": "Choices in the graph",
    "image_scores": "The image's score",
    "ablation": "Ablations",
}
"""By kind of result, in the order of the report."""


@dataclass(frozen=True)
class Block:
    """Tables and figures that belong together; the title may be empty."""

    title: str
    tables: list[Table]
    figures: list[Figure] = field(default_factory=list)


@dataclass(frozen=True)
class Chapter:
    """All that was measured of a kind."""

    kind: str
    title: str
    blocks: list[Block]


def blocks_of(content: Record, name: str) -> list[Block]:
    """Return the blocks of a result.

    Args:
        content: of a result file.
        name: of letters and digits, unique in the report; begins the ids of its figures.
    """
    match content["kind"]:
        case "accuracy":
            return _accuracy_blocks(content, name)
        case "latency":
            return [Block("", latency_tables(content), latency_figures(content["cases"], name))]
        case "peers":
            return [Block("", peers_tables(content), [ratio_figure(content, name)])]
        case "tiles":
            return [Block("", tiles_tables(content))]
        case "device":
            return [Block("", device_tables(content))]
        case "low_precision":
            return [Block("", low_precision_tables(content))]
        case "graph_ablation":
            return [Block("", graph_ablation_tables(content))]
        case "image_scores":
            return [Block("", image_scores_tables(content))]
        case "libstpm":
            return [Block("", libstpm_tables(content))]
        case "training_speed":
            return [Block("", training_speed_tables(content))]
        case "serving":
            return [Block("", serving_tables(content))]
        case "fleet":
            return [Block("", fleet_tables(content))]
        case "live":
            return [Block("", live_tables(content))]
        case "plan":
            return [Block("", plan_tables(content))]
        case "shadow":
            return [Block("", shadow_tables(content))]
        case "drift":
            return [Block("", drift_tables(content), drift_figures(content, name))]
        case "fleet_scaling":
            return [Block("", scaling_tables(content))]
        case "alignment":
            return [Block("", alignment_tables(content))]


def ablation_block(lines: Sequence[AblationLine]) -> Block:
    """Return the block of a file with lines of ablations."""
    return Block("", ablation_tables(lines))


def chapters(blocks: Sequence[tuple[str, Block]]) -> list[Chapter]:
    """Sort (kind, block) pairs into chapters; a kind without blocks has none."""
    found = {kind: [block for k, block in blocks if k == kind] for kind in TITLES}
    return [Chapter(kind, TITLES[kind], group) for kind, group in found.items() if group]


def _accuracy_blocks(content: AccuracyRecord, name: str) -> list[Block]:
    blocks = []
    for i, (category, rows) in enumerate(content["categories"].items()):
        alone: AccuracyRecord = {**content, "categories": {category: rows}, "means": []}
        figures = curves(rows, f"{name}c{i}")
        chosen = enumerate(one_engine_each(rows))
        figures += [histogram(row, f"{name}c{i}h{j}") for j, row in chosen]
        blocks.append(Block(category, accuracy_tables(alone), figures))
    if content["means"]:
        blocks.append(Block("Over categories", accuracy_tables({**content, "categories": {}})))
    return blocks
