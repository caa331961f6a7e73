"""`stpm-bench ablation`: the paper's ablations, one command each."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stpm.benchmarks.records.accuracy import METRICS
from stpm.benchmarks.report.tables import Table, print_tables
from stpm.benchmarks.studies.ablation_cells import Axis, cells, check_names, paper_figures
from stpm.runtime.errors import DataError, StpmError
from stpm.runtime.output.console import known_errors, note, parse_size
from stpm.runtime.store import local

if TYPE_CHECKING:
    from stpm.benchmarks.studies.ablation import Run


@known_errors
def ablation(
    axis: Annotated[Axis, typer.Argument(help="What to vary: Tables 6 to 9 of the paper.")],
    data: Annotated[Path, typer.Option(help="Root of a data set, as for stpm-train.")],
    category: Annotated[
        list[str] | None, typer.Option(help="May be repeated.", show_default="all of --data")
    ] = None,
    seed: Annotated[
        list[int] | None, typer.Option(min=0, help="May be repeated.", show_default="0")
    ] = None,
    cell: Annotated[
        list[str] | None,
        typer.Option(help="Cell of the table; may be repeated.", show_default="all"),
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Epochs per cell.")] = 100,
    input_size: Annotated[
        str, typer.Option(help="Input size of the networks, HxW or one number for both.")
    ] = "256",
    teacher_weights: Annotated[
        list[str] | None,
        typer.Option(
            help="FILE for every cell, or NAME=FILE for one; on the axis teacher each NAME is a "
            "cell. May be repeated.",
            show_default="ImageNet, from torchvision's cache or hub",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of checkpoints, bundles, results.", show_default="ablation_AXIS"),
    ] = None,
) -> None:
    """Train, export and measure each cell of one of the paper's ablations.

    A finished cell is not run again, and a cell that was cut off goes on where it stopped: repeat
    the command. A cell that cannot be run is left out, and named at the end.
    """
    from stpm.benchmarks.studies.ablation import Run
    from stpm.train.datasets import category_names, open_category

    size, data = parse_size(input_size), local(data)
    by_name, default = _weights(teacher_weights or [])
    chosen = cells(axis, by_name, default)
    check_names(cell or [], [c.name for c in chosen], "--cell")
    categories = category or category_names(data)
    for name in categories:
        open_category(data, name)
    runs = [
        Run(axis, c, name, number, epochs, size)
        for c, name, number in itertools.product(chosen, categories, seed or [0])
        if not cell or c.name in cell
    ]
    folder = out or Path(f"ablation_{axis}")
    folder.mkdir(parents=True, exist_ok=True)
    lines, failures = _run_all(runs, data, folder)
    print_tables([_table(axis, runs, lines)])
    if failures:
        raise StpmError(
            f"{len(failures)} of {len(runs)} runs failed ({', '.join(failures)}); see the "
            "lines above, then repeat the command."
        )


def _weights(given: Sequence[str]) -> tuple[dict[str, Path], Path | None]:
    by_name: dict[str, Path] = {}
    default = None
    for text in given:
        name, equals, file = text.partition("=")
        if equals:
            by_name[name] = Path(file)
        elif default is None:
            default = Path(text)
        else:
            raise typer.BadParameter(f"got {text} and {default} for every cell; give NAME=FILE.")
    for path in [*by_name.values(), *([default] if default else [])]:
        if not path.is_file():
            raise DataError(f"{path}: there is no such file; check --teacher-weights.")
    return by_name, default


def _run_all(runs: Sequence[Run], data: Path, out: Path) -> tuple[list[dict[str, Any]], list[str]]:
    from stpm.benchmarks.studies.ablation import finished, run_cell

    lines, failures = [], []
    for number, run in enumerate(runs, start=1):
        title = f"{number}/{len(runs)}: {run.stem}"
        line = finished(out, run)
        if line is not None:
            note(f"{title}, already done")
            lines.append(line)
            continue
        note(title)
        try:
            lines.append(run_cell(run, data, out, note))
        except StpmError as error:
            note(f"{title}, left out: {error}")
            failures.append(run.stem)
        except KeyboardInterrupt:
            note(f"interrupted in {run.stem}; repeat the command to continue")
            raise typer.Exit(130) from None
    return lines, failures


def _table(axis: Axis, runs: Sequence[Run], lines: Sequence[Mapping[str, Any]]) -> Table:
    from stpm.benchmarks.studies.ablation import cell_mean

    categories = ", ".join(sorted({line["category"] for line in lines}))
    table = Table(
        f"{axis}, {runs[0].epochs} epochs, {categories}; paper: mean of MVTec AD",
        ("", *METRICS.values(), "runs"),
    )
    paper = paper_figures(axis)
    for name in dict.fromkeys(run.cell.name for run in runs):
        of_cell = [line for line in lines if line["cell"] == name]
        means = (cell_mean(of_cell, metric) for metric in METRICS)
        ours = [
            ""
            if mean is None
            else f"{mean.mean:.4f}" + (f"\n±{mean.deviation:.4f}" if mean.deviation else "")
            for mean in means
        ]
        table.add(name, *ours, str(len(of_cell)))
        if name in paper:
            figures = (f"{value:.3f}" for value in paper[name].values())
            table.add(f"{name} paper", *figures, published=True)
    return table
