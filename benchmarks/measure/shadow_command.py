"""`stpm-bench shadow`: what another bundle would have decided of an archive."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stpm.benchmarks.records.result_file import check_out
from stpm.benchmarks.report.tables import show
from stpm.runtime.output.console import known_errors
from stpm.runtime.store import local


@known_errors
def shadow(
    old: Annotated[Path, typer.Argument(help="The bundle that decides.")],
    new: Annotated[Path, typer.Argument(help="The bundle that may replace it.")],
    archive: Annotated[
        Path,
        typer.Argument(
            help="A folder of images and all below it, the record of a station, or a labelled data "
            "set or its category."
        ),
    ],
    category: Annotated[
        str | None,
        typer.Option(help="Of a labelled data set.", show_default="the new bundle's name"),
    ] = None,
    engine: Annotated[
        str | None, typer.Option(help="Such as onnxruntime.", show_default="each one's fastest")
    ] = None,
    gallery: Annotated[
        Path | None, typer.Option(help="Folder for pictures of what changed, with both maps.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="JSON file to write.")] = None,
) -> None:
    """Score an archive with two bundles: whose verdict would change, and who is right.

    Of a record, images that are still where it names them are scored. Images that cannot be scored
    are named and counted; then the exit code is 1.
    """
    from stpm.benchmarks.measure.shadow import shadow_result
    from stpm.benchmarks.report.tables_shadow import shadow_tables

    check_out(out)
    content = shadow_result(
        local(old), local(new), local(archive), category=category, engine=engine, gallery=gallery
    )
    show(shadow_tables(content), content, out)
    if content["unscored"]:
        raise typer.Exit(1)
