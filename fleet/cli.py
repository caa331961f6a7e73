"""`stpm-fleet`: many models at once, on this machine or on a cluster of Ray."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from stpm.runtime.errors import StpmError
from stpm.runtime.output.console import Version, known_errors, note, progress, say
from stpm.runtime.serve.options import check_extra, model_name

main = typer.Typer(pretty_exceptions_enable=False)
RECORD = "fleet.json"
PAGE = "report.html"


@main.callback()
def fleet(_version: Version = False) -> None:
    """Train and measure many models at once."""


@main.command()
@known_errors
def train(
    plan: Annotated[
        Path, typer.Argument(help="fleet.toml: products, cameras, seeds and common flags.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            file_okay=False,
            help="Folder for the models.",
            show_default="beside the file, with its name",
        ),
    ] = None,
) -> None:
    """Train, export, verify, calibrate and measure a fleet; run it again to continue.

    Exits with 1 if a model failed; the others are completed all the same.
    """
    check_extra("ray", "torch", extra="fleet")
    from stpm.benchmarks.records.header import header
    from stpm.benchmarks.records.result_file import write_result
    from stpm.benchmarks.report.document import write_report
    from stpm.benchmarks.report.tables import print_tables
    from stpm.benchmarks.report.tables_fleet import fleet_tables
    from stpm.fleet.build import ACCURACY, build_model, bundle_path, names_of
    from stpm.fleet.plan import read_plan
    from stpm.fleet.pool import ray_cluster, run_tasks

    folder = out or plan.with_suffix("")
    found = read_plan(plan, folder)
    folder.mkdir(parents=True, exist_ok=True)
    with ray_cluster() as ray, progress("fleet", len(found.models), "models") as on_models:

        def on_row(row: dict[str, Any]) -> None:
            on_models(1)
            state = row.get("error") or ("as it was" if row["reused"] else "built")
            note(f"{row.get('name', 'a model')}: {state}")

        rows = run_tasks(
            ray, build_model, found.models, cpus=found.cpus, gpus=found.gpus, on_row=on_row
        )
    named = [
        names_of(m) | {"seconds": 0.0, "reused": False} | row
        for m, row in zip(found.models, rows, strict=True)
    ]
    good = [m for m, row in zip(found.models, rows, strict=True) if "error" not in row]
    record: Any = header("fleet", [bundle_path(m) for m in good]) | {"fleet": named}
    write_result(folder / RECORD, record)
    print_tables(fleet_tables(record))
    accuracies = [m.folder / ACCURACY for m in good if (m.folder / ACCURACY).is_file()]
    write_report([folder / RECORD, *accuracies], folder / PAGE)
    say(folder / PAGE)
    if len(good) < len(found.models):
        raise StpmError(
            f"{len(found.models) - len(good)} of {len(found.models)} models failed; fix the "
            "reasons given for them, and run the same command again."
        )


@main.command()
@known_errors
def score(
    bundle: Annotated[str, typer.Argument(help="The folder NAME.stpm, or its s3://... address.")],
    images: Annotated[str, typer.Argument(help="Folder of images, or s3://, gs://, https://.")],
    out: Annotated[
        Path | None,
        typer.Option(file_okay=False, help="Folder of Parquet files.", show_default="NAME_scores"),
    ] = None,
    engine: Annotated[
        str | None, typer.Option(help="Engine, such as openvino.", show_default="the fastest here")
    ] = None,
    workers: Annotated[
        int, typer.Option(min=1, help="Engines that run in parallel, with one CPU thread each.")
    ] = 2,
) -> None:
    """Score archived images into Parquet: one row per image, also for those that cannot be read.

    Run it again to score the images that are not in the files yet.
    """
    check_extra("fsspec", "pyarrow", "ray", extra="fleet")
    from stpm.fleet.pool import ray_cluster
    from stpm.fleet.score import done_before
    from stpm.fleet.score import score as scored
    from stpm.runtime.bundle.archive import Bundle
    from stpm.runtime.store import addresses_below, is_remote, local

    opened = Bundle(local(bundle))
    target = out or Path(f"{model_name(opened)}_scores")
    found = addresses_below(images)
    done = done_before(target)
    missing = [path for path in found if path not in done]
    note(f"{images}: {len(found)} images, {len(found) - len(missing)} scored before")
    if missing:
        address = bundle if is_remote(bundle) else str(opened.path.absolute())
        with ray_cluster() as ray:
            scored(ray, address, engine, missing, target, workers)
    say(target)


@main.command()
@known_errors
def scaling(
    bundle: Annotated[Path, typer.Argument(help="The folder NAME.stpm.")],
    images: Annotated[Path, typer.Argument(help="Folder of images on the disk.")],
    engine: Annotated[
        str | None, typer.Option(help="Such as openvino.", show_default="the fastest that is here")
    ] = None,
    workers: Annotated[
        list[int] | None,
        typer.Option(min=1, help="Size of a fleet; may be repeated.", show_default="1 and 2"),
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="Images, the first of the folder.")] = 192,
    rounds: Annotated[int, typer.Option(min=1, help="Interleaved rounds.")] = 3,
    store_gbit: Annotated[
        float, typer.Option(min=0.001, help="That a store gives in a second; for the model.")
    ] = 100.0,
    store_requests: Annotated[
        float, typer.Option(min=1, help="That it answers in a second; for the model.")
    ] = 5500.0,
    archive_images: Annotated[int, typer.Option(min=1, help="For the model.")] = 1_000_000,
    out: Annotated[Path | None, typer.Option(help="JSON file to write.")] = None,
) -> None:
    """Time `score` against one process, and model what up to 1000 workers would do."""
    check_extra("fsspec", "pyarrow", "ray", extra="fleet")
    from stpm.benchmarks.records.result_file import check_out
    from stpm.benchmarks.report.tables import show
    from stpm.benchmarks.report.tables_fleet import scaling_tables
    from stpm.fleet.pool import ray_cluster
    from stpm.fleet.scaling import Stated, scaling_result
    from stpm.runtime.store import addresses_below, local

    check_out(out)
    paths = addresses_below(str(images))[:count]
    stated = Stated(store_gbit, store_requests, archive_images)
    with ray_cluster():
        record = scaling_result(
            local(bundle), engine, paths, sorted(workers or [1, 2]), rounds, stated
        )
    show(scaling_tables(record), record, out)
