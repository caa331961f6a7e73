"""`stpm-bench`: is what was exported as accurate, and how fast is it?"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from stpm.benchmarks.measure.live.command import live
from stpm.benchmarks.measure.plan.command import plan
from stpm.benchmarks.measure.shadow_command import shadow
from stpm.benchmarks.measure.tiles_command import tiles
from stpm.benchmarks.records.result_file import check_out
from stpm.benchmarks.report.tables import show
from stpm.benchmarks.studies.ablation_command import ablation
from stpm.benchmarks.studies.alignment_command import align
from stpm.benchmarks.studies.disturbed_command import disturb
from stpm.benchmarks.studies.drift_command import drift
from stpm.runtime.errors import StpmError
from stpm.runtime.output.console import Version, known_errors, note, parse_size
from stpm.runtime.store import local, local_arguments


class Scenario(StrEnum):
    """Choices of --scenario."""

    SINGLE_STREAM = "single_stream"
    MULTI_STREAM = "multi_stream"
    OFFLINE = "offline"


main = typer.Typer(pretty_exceptions_enable=False)


@main.callback()
def bench(_version: Version = False) -> None:
    """Measure what was trained and exported."""


main.command()(ablation)
main.command()(live)
main.command()(plan)
main.command()(drift)
main.command()(shadow)
main.command()(tiles)
main.command()(align)
main.command()(disturb)


@main.command()
@known_errors
def accuracy(
    models: Annotated[list[Path], typer.Argument(help="Checkpoints or bundles.")],
    data: Annotated[
        Path,
        typer.Option(
            help="Root of MVTec AD, VisA, CIFAR-10, MNIST, ShanghaiTech or a set laid out like one."
        ),
    ],
    category: Annotated[
        str | None, typer.Option(help="Category of --data.", show_default="the model's name")
    ] = None,
    every: Annotated[
        int, typer.Option(min=1, help="Take every Nth image, for example of a video.")
    ] = 1,
    engine: Annotated[
        str | None,
        typer.Option(
            help="Engine that bundles run on.", show_default="all that are verified and installed"
        ),
    ] = None,
    teacher_weights: Annotated[
        Path | None,
        typer.Option(help="Teacher weights, for the authors' checkpoints, which lack the teacher."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="JSON file to write.")] = None,
    gallery: Annotated[
        Path | None, typer.Option(help="Folder for pictures of input, heat map and ground truth.")
    ] = None,
    gallery_count: Annotated[
        int | None,
        typer.Option(min=1, help="Pictures of the most doubtful images.", show_default="of all"),
    ] = None,
) -> None:
    """Evaluate checkpoints and bundles on labelled images, compared with the published figures.

    The table by kind of defect is for the first model; --out has it for all.
    """
    from stpm.benchmarks.measure.accuracy import accuracy_result
    from stpm.benchmarks.report.tables_accuracy import accuracy_tables

    check_out(out)
    content = accuracy_result(
        [local(model) for model in models],
        local(data),
        category=category,
        every=every,
        engine=engine,
        teacher_weights=teacher_weights,
        gallery=gallery,
        gallery_count=gallery_count,
    )
    show(accuracy_tables(content), content, out)


@main.command()
@known_errors
def latency(
    bundles: Annotated[list[Path], typer.Argument(help="Bundles.")],
    images: Annotated[
        Path | None,
        typer.Option(help="Folder of images.", show_default="the bundle's golden images"),
    ] = None,
    engine: Annotated[
        list[str] | None, typer.Option(help="May be repeated.", show_default="all that are usable")
    ] = None,
    scenario: Annotated[
        list[Scenario] | None,
        typer.Option(help="MLPerf Inference scenario; may be repeated.", show_default="all three"),
    ] = None,
    image_size: Annotated[
        list[str] | None,
        typer.Option(
            help="Camera image size, HxW; may be repeated.", show_default="the graph's input"
        ),
    ] = None,
    batch: Annotated[
        list[int] | None, typer.Option(help="May be repeated.", min=1, show_default="1")
    ] = None,
    streams: Annotated[
        list[int] | None,
        typer.Option(help="Threads that score in parallel; may be repeated.", show_default="2"),
    ] = None,
    threads: Annotated[
        list[int] | None,
        typer.Option(help="CPU threads per run.", show_default="the engine's choice"),
    ] = None,
    count: Annotated[int, typer.Option(help="Images to score in each case.", min=1)] = 200,
    rounds: Annotated[int, typer.Option(help="Interleaved rounds.", min=1)] = 10,
    out: Annotated[Path | None, typer.Option(help="JSON file to write.")] = None,
) -> None:
    """Time bundles by stage and scenario, in interleaved rounds.

    Every combination of the options is a case. Times run from a frame in memory to the decision.
    """
    from stpm.benchmarks.measure.latency import SCENARIOS, LatencyPlan, latency_result
    from stpm.benchmarks.report.tables_speed import latency_tables
    from stpm.train.datasets import list_images

    check_out(out)
    cases = LatencyPlan(
        [local(bundle) for bundle in bundles],
        engine,
        [s.value for s in scenario] if scenario else SCENARIOS,
        [parse_size(size) for size in image_size] if image_size else None,
        batch or (1,),
        streams or (2,),
        threads or (0,),
    )
    files = list_images(local(images)) if images else []
    content = latency_result(cases, files, images=count, rounds=rounds)
    show(latency_tables(content), content, out)


@main.command()
@known_errors
def peers(
    ckpt: Annotated[Path, typer.Argument(help="Checkpoint that the bundles were exported from.")],
    bundles: Annotated[
        list[Path], typer.Argument(help="Bundles; ratios are relative to the first.")
    ],
    data: Annotated[Path, typer.Option(help="Root of a data set, as for stpm-train.")],
    category: Annotated[
        str | None, typer.Option(help="Category of --data.", show_default="the model's name")
    ] = None,
    anomalib: Annotated[
        Path | None,
        typer.Option(
            help="Python interpreter of an environment with anomalib; see docs/benchmarks.md."
        ),
    ] = None,
    teacher_weights: Annotated[
        Path | None,
        typer.Option(help="Teacher weights, for the authors' checkpoints, which lack the teacher."),
    ] = None,
    every: Annotated[int, typer.Option(min=1, help="Take every Nth test image.")] = 1,
    bundles_only: Annotated[
        bool, typer.Option("--bundles-only", help="Leave out other programs and time only bundles.")
    ] = False,
    count: Annotated[
        int, typer.Option(help="Images that each contender scores while timed.", min=1)
    ] = 200,
    rounds: Annotated[int, typer.Option(help="Interleaved rounds.", min=1)] = 20,
    warm_up: Annotated[
        int, typer.Option(help="Images that each contender scores before the first round.", min=0)
    ] = 3,
    out: Annotated[Path | None, typer.Option(help="JSON file to write.")] = None,
) -> None:
    """Compare bundles with torch, other engines and anomalib: first maps, then times.

    Bundles of other methods are compared with their own reference, and timed in the same rounds.
    """
    from stpm.benchmarks.measure.peers import peers_result
    from stpm.benchmarks.report.tables_speed import peers_tables
    from stpm.train.datasets import find_category, open_category

    check_out(out)
    root = local(data)
    content = peers_result(
        ckpt,
        [local(bundle) for bundle in bundles],
        open_category(root, category or find_category(ckpt, root)).test_samples()[::every],
        anomalib_python=anomalib,
        teacher_weights=teacher_weights,
        bundles_only=bundles_only,
        images=count,
        rounds=rounds,
        warm_up=warm_up,
    )
    show(peers_tables(content), content, out)


@main.command()
@known_errors
def baselines(
    ckpt: Annotated[Path, typer.Argument(help="Checkpoint whose teacher gives the descriptors.")],
    data: Annotated[Path, typer.Option(help="Root of a data set, as for stpm-train.")],
    category: Annotated[
        str | None, typer.Option(help="Category of --data.", show_default="the model's name")
    ] = None,
    every: Annotated[int, typer.Option(min=1, help="Take every Nth test image.")] = 1,
    train_share: Annotated[
        float, typer.Option(min=0.001, max=1, help="Share of the good images to learn from.")
    ] = 1.0,
    vectors: Annotated[
        int, typer.Option(min=10, help="Descriptors that 1-NN, K-means and OC-SVM learn from.")
    ] = 20_000,
    epochs: Annotated[int, typer.Option(min=1, help="Epochs of the autoencoders.")] = 50,
    seed: Annotated[int, typer.Option(min=0, help="Seed of all random choices.")] = 0,
    teacher_weights: Annotated[
        Path | None,
        typer.Option(help="Teacher weights, for the authors' checkpoints, which lack the teacher."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="JSON file to write.")] = None,
) -> None:
    """Evaluate 1-NN, K-means, OC-SVM and two autoencoders, compared with a checkpoint.

    The first three learn from the checkpoint's teacher descriptors, the others from images.
    """
    from stpm.benchmarks.report.tables_accuracy import accuracy_tables

    check_out(out)
    try:
        from stpm.benchmarks.studies.baselines import baselines_result
    except ModuleNotFoundError as error:
        raise StpmError(
            f"baselines need {error.name}, which is not installed; pip install 'stpm[baselines]'."
        ) from error
    content = baselines_result(
        ckpt,
        local(data),
        category=category,
        every=every,
        train_share=train_share,
        vectors=vectors,
        epochs=epochs,
        seed=seed,
        teacher_weights=teacher_weights,
    )
    show(accuracy_tables(content), content, out)


@main.command()
@known_errors
def compare(
    a: Annotated[Path, typer.Argument(help="Result file.")],
    b: Annotated[Path, typer.Argument(help="Another result file of the same kind.")],
) -> None:
    """Compare two result files case by case, B against A, with intervals."""
    from stpm.benchmarks.report.compare import compare_files
    from stpm.benchmarks.report.tables import print_tables
    from stpm.benchmarks.report.tables_speed import comparison_table

    print_tables([comparison_table(compare_files(a, b))])


@main.command()
@known_errors
def report(
    results: Annotated[
        list[Path],
        typer.Argument(help="Result files written by --out, and results.jsonl of ablations."),
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="File to write; with .md, Markdown.")
    ] = Path("report.html"),
) -> None:
    """Make one page of results: verdict, tables, plots, pictures, provenance.

    The page needs no network and contains the pictures of accuracy --gallery.
    """
    check_out(out)
    try:
        from stpm.benchmarks.report.document import write_report
    except ModuleNotFoundError as error:
        raise StpmError(
            f"the report needs {error.name}, which is not installed; pip install 'stpm[report]'."
        ) from error
    for reason in write_report(results, out):
        note(f"left out: {reason}")
    note(f"{out}: written")


@main.command()
@known_errors
def review(
    bundle: Annotated[Path, typer.Argument(help="The folder NAME.stpm.")],
    good: Annotated[
        list[str] | None, typer.Option(help="Good parts: a file, folder or glob; repeatable.")
    ] = None,
    bad: Annotated[
        list[str] | None, typer.Option(help="Known defects: a file, folder or glob; repeatable.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Root of a labelled data set, instead of --good and --bad.")
    ] = None,
    category: Annotated[
        str | None, typer.Option(help="Category of --data.", show_default="the bundle's name")
    ] = None,
    engine: Annotated[
        str | None,
        typer.Option(help="Engine, such as onnxruntime.", show_default="the fastest here"),
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="HTML file to write.")] = Path(
        "review.html"
    ),
) -> None:
    """Make one page to choose a threshold by eye: drag it and see which verdicts change."""
    from stpm.benchmarks.review.page import write_review
    from stpm.runtime.detector import Detector
    from stpm.runtime.images.listing import find_images
    from stpm.runtime.output.console import progress

    if (data is None) == (good is None):
        raise typer.BadParameter("give --good (and --bad, if there are known defects), or --data.")
    check_out(out)
    if data is not None:
        from stpm.train.datasets import find_category, open_category

        root = local(data)
        samples = open_category(root, category or find_category(bundle, root)).test_samples()
        goods = [sample.path for sample in samples if not sample.is_anomalous]
        bads = [sample.path for sample in samples if sample.is_anomalous]
    else:
        goods = find_images(local_arguments(good or [])).images
        bads = find_images(local_arguments(bad)).images if bad else []
    with progress("scoring", len(goods) + len(bads)) as on_images:
        made = write_review(Detector(bundle, engine), goods, bads, out, on_images)
    left = f", {made.without_picture} without a picture" if made.without_picture else ""
    if made.unaligned:
        left += f", {made.unaligned} left out that cannot be aligned"
    note(f"{out}: {made.good} good parts, {made.bad} defects{left}")
