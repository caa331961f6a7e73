"""`stpm-bench`: is the exported model as accurate as the checkpoint and the paper?"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stpm.benchmarks.ablation_cli import ablation
from stpm.runtime.console import known_errors, note, progress
from stpm.runtime.errors import DataError

if TYPE_CHECKING:
    from rich.table import Table

    from stpm.benchmarks.accuracy import Accuracy

METRICS = {
    "image_auroc": "image\nAUROC",
    "pixel_auroc": "pixel\nAUROC",
    "aupro": "AUPRO",
    "pro_rescaled": "rescaled\nPRO",
}
"""Titles by the names in `stpm.train.metrics.Metrics`."""

main = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@main.callback()
def bench() -> None:
    """Measure what was trained and exported."""


main.command()(ablation)


@main.command()
@known_errors
def accuracy(
    models: Annotated[list[Path], typer.Argument(help="Checkpoints or bundles.")],
    data: Annotated[
        Path,
        typer.Option(help="Root of MVTec AD, VisA, CIFAR-10, ShanghaiTech or one laid out alike."),
    ],
    category: Annotated[
        str | None, typer.Option(help="Category of --data.", show_default="the model's name")
    ] = None,
    every: Annotated[int, typer.Option(min=1, help="Take every Nth image, as of a video.")] = 1,
    engine: Annotated[
        str | None, typer.Option(help="Of bundles.", show_default="all verified and installed")
    ] = None,
    teacher_weights: Annotated[
        Path | None, typer.Option(help="For the authors' checkpoints, which lack the teacher.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="JSON file to write.")] = None,
    gallery: Annotated[
        Path | None, typer.Option(help="Folder for pictures of input, heat map and truth.")
    ] = None,
) -> None:
    """Evaluate checkpoints and bundles on labelled images, beside the published figures.

    The table by kind of defect is the first model's; --out holds everyone's.
    """
    from stpm.benchmarks.accuracy import candidates, measure, save_gallery
    from stpm.benchmarks.environment import environment
    from stpm.runtime.detector import Detector
    from stpm.train.datasets import open_category

    if out is not None and not out.absolute().parent.is_dir():
        raise DataError(f"{out.parent}: there is no such folder; create it first.")
    outcomes: dict[str, list[Accuracy]] = {}
    for model in models:
        name = category or model.name.split(".")[0]
        samples = open_category(data, name).test_samples()[::every]
        for candidate in candidates(model, engine, teacher_weights):
            label = f"{candidate.name} on {candidate.engine}"
            with progress(label, len(samples)) as on_images:
                outcomes.setdefault(name, []).append(measure(candidate, samples, on_images))
        if gallery is not None and model.is_dir():
            paths = save_gallery(Detector(model, engine), samples, gallery / name)
            note(f"{gallery / name}: {len(paths)} pictures")
    for name, accuracies in outcomes.items():
        _print(name, accuracies)
    if out is not None:
        categories = {name: [a.to_dict() for a in found] for name, found in outcomes.items()}
        content = {"environment": environment(), "categories": categories}
        out.write_text(json.dumps(content, indent=2) + "\n")
        note(f"{out}: written")


def _print(category: str, accuracies: list[Accuracy]) -> None:
    from rich.console import Console

    from stpm.benchmarks.paper import reference_figures

    table = _table(category, "", *METRICS.values(), "false\nalarms", "detected")
    for outcome in accuracies:
        rates = outcome.decisions
        shares = (rates.false_alarm_rate, rates.detection_rate) if rates else ()
        cells = _cells(asdict(outcome.evaluation.overall))
        table.add_row(_label(outcome), *cells, *(f"{share:.1%}" for share in shares))
    for source, figures in reference_figures(category).items():
        table.add_row(source, *_cells(figures), style="dim")
    first = accuracies[0]
    kinds = _table(f"{category} by kind of defect, {_label(first)}", "", *METRICS.values())
    for kind, metrics in first.evaluation.by_kind.items():
        kinds.add_row(kind, *_cells(asdict(metrics)))
    console = Console()
    console.print(table)
    console.print(kinds)


def _label(outcome: Accuracy) -> str:
    candidate = outcome.candidate
    return f"{candidate.name} {candidate.engine} {candidate.precision}"


def _table(title: str, *columns: str) -> Table:
    from rich.table import Table

    table = Table(title=title)
    for column in columns:
        table.add_column(
            column,
            justify="right" if column else "left",
            overflow="fold",
            no_wrap=bool(column),
        )
    return table


def _cells(figures: Mapping[str, float | None]) -> list[str]:
    values = [figures.get(name) for name in METRICS]
    return ["" if value is None else f"{value:.4f}" for value in values]
