"""`stpm-bench plan`: will a station keep up, and how is it to be set?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stpm.benchmarks.records.result_file import check_out
from stpm.runtime.errors import StpmError
from stpm.runtime.output.console import known_errors, parse_size
from stpm.runtime.store import local


@known_errors
def plan(
    bundles: Annotated[list[Path], typer.Argument(help="Bundles, such as of two precisions.")],
    cycle_time: Annotated[
        str,
        typer.Option(help="Between two frames of a camera, and for a verdict, such as 250ms."),
    ],
    size: Annotated[str, typer.Option(help="HxW of the cameras' images.")],
    cameras: Annotated[
        int, typer.Option(min=1, help="Cameras, which take their frames at the same time.")
    ] = 1,
    images: Annotated[
        Path | None,
        typer.Option(help="Folder of images.", show_default="the bundle's golden images"),
    ] = None,
    engine: Annotated[
        list[str] | None, typer.Option(help="May be repeated.", show_default="all that are usable")
    ] = None,
    threads: Annotated[
        list[int] | None,
        typer.Option(
            min=1, help="Of a run; may be repeated.", show_default="one, all, and half of them"
        ),
    ] = None,
    cycles: Annotated[int, typer.Option(min=3, help="Measured of each arrangement.")] = 60,
    out: Annotated[Path | None, typer.Option(help="JSON file to write.")] = None,
) -> None:
    """Find the fastest arrangement of stpm-live that holds a cycle time on this machine.

    Exits with 1 where none does, and says what comes nearest and what to try.
    """
    from stpm.benchmarks.measure.plan.choice import Demand
    from stpm.benchmarks.measure.plan.run import plan_result
    from stpm.benchmarks.records.environment import usable_cores
    from stpm.benchmarks.report.tables import show
    from stpm.benchmarks.report.tables_plan import plan_tables
    from stpm.runtime.live.durations import parse_seconds
    from stpm.train.datasets import list_images

    check_out(out)
    cycle_ms = 1e3 * parse_seconds(cycle_time)
    if cycle_ms <= 0:
        raise typer.BadParameter(f"got --cycle-time {cycle_time}, expected more than 0.")
    demand = Demand(cameras, cycle_ms, parse_size(size), usable_cores() or 1)
    files = list_images(local(images)) if images else []
    bundles = [local(bundle) for bundle in bundles]
    record = plan_result(bundles, files, demand, engines=engine, threads=threads, cycles=cycles)
    show(plan_tables(record), record, out)
    if record["chosen"] is None:
        raise StpmError(
            f"no arrangement holds {cycle_ms:g} ms; nearest comes {record['nearest']}. "
            f"To try: {'; '.join(record['advice'])}."
        )
