"""`stpm-bench disturb`: test images as another day's place and light would show them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stpm.runtime.output.console import known_errors, progress, say
from stpm.runtime.store import local


@known_errors
def disturb(
    data: Annotated[Path, typer.Option(help="Root of a labelled data set.")],
    category: Annotated[str, typer.Option(help="Category of --data.")],
    out: Annotated[Path, typer.Option(help="Root of the data set to write.")],
    shift: Annotated[
        float, typer.Option(min=0, max=0.5, help="Largest shift along each axis: share of a side.")
    ] = 0.05,
    degrees: Annotated[float, typer.Option(min=0, max=180, help="Largest rotation.")] = 5,
    light: Annotated[
        float, typer.Option(min=0, max=0.9, help="Largest change of the brightness, a share.")
    ] = 0.2,
    seed: Annotated[int, typer.Option(min=0, help="Fixes shifts, rotations and light.")] = 0,
) -> None:
    """Shift, turn, brighten and dim labelled test images, to evaluate models on."""
    from stpm.runtime.replay import check_opencv
    from stpm.train.datasets import open_category

    check_opencv("stpm-bench disturb moves images")
    from stpm.benchmarks.studies.disturbed import write_disturbed
    from stpm.benchmarks.studies.movement import Movement

    samples = open_category(local(data), category).test_samples()
    with progress("disturbing", len(samples)) as on_images:
        write_disturbed(samples, out / category, Movement(shift, degrees, seed), light, on_images)
    say(out)
