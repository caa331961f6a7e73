"""The command `stpm-bench tiles`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stpm.benchmarks.records.result_file import check_out
from stpm.benchmarks.report.tables import show
from stpm.runtime.output.console import known_errors
from stpm.runtime.store import local


@known_errors
def tiles(
    bundles: Annotated[list[Path], typer.Argument(help="Bundles of stpm-export --tile.")],
    engine: Annotated[
        str | None, typer.Option(help="Of all.", show_default="the fastest they all name")
    ] = None,
    threads: Annotated[
        int, typer.Option(min=0, help="Processor threads of a run; 0: the engine's choice.")
    ] = 0,
    count: Annotated[int, typer.Option(help="Images that each scores in a round.", min=1)] = 3,
    rounds: Annotated[int, typer.Option(help="Interleaved rounds.", min=1)] = 5,
    out: Annotated[Path | None, typer.Option(help="JSON file to write.")] = None,
) -> None:
    """Measure time and memory of large images by tiles, each bundle in a fresh process a round."""
    from stpm.benchmarks.measure.tiles import tiles_result
    from stpm.benchmarks.report.tables_tiles import tiles_tables

    check_out(out)
    bundles = [local(bundle) for bundle in bundles]
    content = tiles_result(bundles, engine=engine, threads=threads, images=count, rounds=rounds)
    show(tiles_tables(content), content, out)
