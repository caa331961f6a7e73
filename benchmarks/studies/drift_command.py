"""`stpm-bench drift`: how soon a station notices that the world has changed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stpm.benchmarks.records.result_file import check_out
from stpm.benchmarks.report.tables import show
from stpm.runtime.output.console import known_errors
from stpm.runtime.store import local, local_arguments


@known_errors
def drift(
    bundle: Annotated[Path, typer.Argument(help="The folder NAME.stpm.")],
    good: Annotated[
        list[str],
        typer.Option(
            help="Good parts that were not trained on: a file, folder or glob; repeatable."
        ),
    ],
    bad: Annotated[
        list[str] | None, typer.Option(help="Known defects: a file, folder or glob; repeatable.")
    ] = None,
    level: Annotated[
        float, typer.Option(min=1e-9, max=0.5, help="Odds of a false alarm, in all the time.")
    ] = 1e-3,
    calibration: Annotated[
        int, typer.Option(min=1, help="Good images that a station was calibrated on.")
    ] = 100,
    before: Annotated[int, typer.Option(min=1, help="Undisturbed images before a change.")] = 500,
    repetitions: Annotated[int, typer.Option(min=1, help="Of each change.")] = 100,
    short_runs: Annotated[int, typer.Option(min=1, help="Undisturbed runs of 500 images.")] = 1000,
    long_runs: Annotated[int, typer.Option(min=1, help="Undisturbed runs of --long images.")] = 10,
    long: Annotated[int, typer.Option(min=1, help="Images of a long run.")] = 100_000,
    seed: Annotated[int, typer.Option(min=0, help="Fixes everything that is drawn at random.")] = 0,
    engine: Annotated[
        str | None, typer.Option(help="Such as onnxruntime.", show_default="the fastest here")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="JSON file to write.")] = None,
) -> None:
    """Measure how soon dimmed light, a lens out of focus and other parts are noticed.

    And how often an alarm is raised in vain. Every image is scored once in each look; the streams
    are drawn from what was measured.
    """
    from stpm.benchmarks.report.tables_drift import drift_tables
    from stpm.benchmarks.studies.drift import Plan, drift_result
    from stpm.runtime.images.listing import find_images

    check_out(out)
    plan = Plan(
        level=level,
        calibration=calibration,
        before=before,
        repetitions=repetitions,
        short_runs=short_runs,
        long_runs=long_runs,
        long_images=long,
        seed=seed,
    )
    goods, bads = (find_images(local_arguments(paths or [])).images for paths in (good, bad))
    content = drift_result(local(bundle), goods, bads, plan, engine)
    show(drift_tables(content), content, out)
