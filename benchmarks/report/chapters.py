"""The chapters of a report: the tables and figures of each kind of result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from stpm.benchmarks.report.plots import Figure, curves, histogram
from stpm.benchmarks.report.plots_time import latency_figures, ratio_figure
from stpm.benchmarks.report.tables import (
    Table,
    ablation_tables,
    accuracy_tables,
    latency_tables,
    peers_tables,
)

Content = Mapping[str, Any]

TITLES = {
    "accuracy": "Accuracy",
    "latency": "Speed",
    "peers": "Other programs",
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


def blocks_of(content: Content, name: str) -> list[Block]:
    """Return the blocks of a result.

    Args:
        content: of a result file.
        name: of letters and digits, unique in the report; begins the ids of its figures.
    """
    if content["kind"] == "accuracy":
        return _accuracy_blocks(content, name)
    if content["kind"] == "latency":
        return [Block("", latency_tables(content), latency_figures(content["cases"], name))]
    return [Block("", peers_tables(content), [ratio_figure(content, name)])]


def ablation_block(lines: Sequence[Mapping[str, Any]]) -> Block:
    """Return the block of a file with lines of ablations."""
    return Block("", ablation_tables(lines))


def chapters(blocks: Sequence[tuple[str, Block]]) -> list[Chapter]:
    """Sort (kind, block) pairs into chapters; a kind without blocks has none."""
    found = {kind: [block for k, block in blocks if k == kind] for kind in TITLES}
    return [Chapter(kind, TITLES[kind], group) for kind, group in found.items() if group]


def _accuracy_blocks(content: Content, name: str) -> list[Block]:
    blocks = []
    for i, (category, rows) in enumerate(content["categories"].items()):
        alone = {**content, "categories": {category: rows}, "means": []}
        figures = curves(rows, f"{name}c{i}")
        chosen = enumerate(_one_engine_each(rows))
        figures += [histogram(row, f"{name}c{i}h{j}") for j, row in chosen]
        blocks.append(Block(category, accuracy_tables(alone), figures))
    if content["means"]:
        blocks.append(Block("Over categories", accuracy_tables({**content, "categories": {}})))
    return blocks


def _one_engine_each(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the first row of each bundle, or of each checkpoint where there is no bundle.

    The scores of other engines differ by less than the width of a line.
    """
    bundles = [row for row in rows if row["calibration"]] or rows
    first: dict[str, Mapping[str, Any]] = {}
    for row in bundles:
        first.setdefault(row["name"], row)
    return list(first.values())
