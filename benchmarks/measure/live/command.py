"""`stpm-bench live`: does a station lose anything while things around it fail?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stpm.benchmarks.records.result_file import check_out
from stpm.runtime.errors import StpmError
from stpm.runtime.output.console import known_errors, parse_size
from stpm.runtime.store import local


@known_errors
def live(
    bundle: Annotated[Path, typer.Argument(help="The folder NAME.stpm.")],
    images: Annotated[
        Path | None,
        typer.Option(help="Folder of images to show.", show_default="the bundle's golden images"),
    ] = None,
    cameras: Annotated[int, typer.Option(min=1, help="Cameras of the station.")] = 4,
    size: Annotated[str, typer.Option(help="HxW of their images.")] = "1024x1280",
    rate: Annotated[float, typer.Option(min=0.1, help="Frames a second of each.")] = 5.0,
    minutes: Annotated[float, typer.Option(min=0.2, help="For how long.")] = 30.0,
    cycle_time: Annotated[str, typer.Option(help="Time that a verdict may take.")] = "250ms",
    engine: Annotated[
        str | None, typer.Option(help="Such as onnxruntime.", show_default="the fastest here")
    ] = None,
    threads: Annotated[int, typer.Option(min=0, help="Processor threads of one run.")] = 0,
    out: Annotated[Path | None, typer.Option(help="JSON file to write.")] = None,
) -> None:
    """Run stpm-live under load, and count what becomes of each frame.

    Meanwhile its broker is stopped and started, a camera unplugged, and the pictures' disk filled.
    """
    from stpm.benchmarks.report.tables import show
    from stpm.benchmarks.report.tables_live import live_tables
    from stpm.runtime.live.durations import parse_seconds
    from stpm.train.datasets import list_images

    check_out(out)
    try:
        from stpm.benchmarks.measure.live.run import Load, live_result
    except ModuleNotFoundError as error:
        raise StpmError(
            f"live needs {error.name}, which is not installed; pip install 'stpm[live]'."
        ) from error
    files = list_images(local(images)) if images else []
    bundle = local(bundle)
    cycle_ms = 1e3 * parse_seconds(cycle_time)
    load = Load(
        bundle, files, parse_size(size), cameras, rate, 60 * minutes, cycle_ms, engine, threads
    )
    record = live_result(load)
    show(live_tables(record), record, out)
