"""The command `stpm-bench align`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stpm.benchmarks.records.result_file import check_out
from stpm.benchmarks.report.tables import show
from stpm.runtime.output.console import known_errors
from stpm.runtime.store import local


@known_errors
def align(
    bundle: Annotated[Path, typer.Argument(help="A bundle that aligns parts.")],
    data: Annotated[Path, typer.Option(help="Root of a labelled data set.")],
    category: Annotated[
        str | None, typer.Option(help="Category of --data.", show_default="the bundle's name")
    ] = None,
    engine: Annotated[
        str | None, typer.Option(help="Such as onnxruntime.", show_default="the fastest here")
    ] = None,
    shift: Annotated[
        float, typer.Option(min=0, max=0.5, help="Of images, along each axis: share of the side.")
    ] = 0.05,
    degrees: Annotated[float, typer.Option(min=0, max=180, help="That images are turned by.")] = 10,
    seed: Annotated[int, typer.Option(min=0, help="Of the movements.")] = 0,
    every: Annotated[int, typer.Option(min=1, help="Take every Nth test image.")] = 1,
    out: Annotated[Path | None, typer.Option(help="JSON file to write.")] = None,
) -> None:
    """Shift and turn test images, and score them with the bundle's aligner and without."""
    from stpm.benchmarks.report.tables_studies import alignment_tables
    from stpm.runtime.replay import check_opencv
    from stpm.train.datasets import find_category, open_category

    check_out(out)
    check_opencv("stpm-bench align moves images")
    from stpm.benchmarks.studies.alignment import alignment_result
    from stpm.benchmarks.studies.movement import Movement

    bundle, data = local(bundle), local(data)
    name = category or find_category(bundle, data)
    samples = open_category(data, name).test_samples()[::every]
    content = alignment_result(bundle, samples, name, Movement(shift, degrees, seed), engine)
    show(alignment_tables(content), content, out)
