"""`stpm-run`: score images with a bundle."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from stpm.runtime.bundle.archive import Bundle
from stpm.runtime.capabilities import engine_states, tried_with
from stpm.runtime.detector import Detector
from stpm.runtime.errors import DataError, about
from stpm.runtime.images.listing import counts, find_images
from stpm.runtime.images.preprocess import RGB, load_image, with_channels
from stpm.runtime.live.replay_record import replay
from stpm.runtime.output.console import Version, command, counted, note, say
from stpm.runtime.output.overlay import save_pictures
from stpm.runtime.output.picture_names import picture_stems
from stpm.runtime.output.result import Result, Verdict
from stpm.runtime.store import local, local_arguments, on_disk, shown

EXIT_ANOMALY = 3
C_SOURCES = Path(__file__).parent / "c"


def _print_c_sources(wanted: bool) -> None:
    if wanted:
        say(C_SOURCES)
        raise typer.Exit


def run(
    bundle: Annotated[
        Path | None, typer.Argument(help="The folder NAME.stpm, or s3://... of one.")
    ] = None,
    images: Annotated[
        list[str] | None,
        typer.Argument(
            help="Files, folders, globs, s3://..., gs://..., https://..., or - for a list of paths "
            "on standard input."
        ),
    ] = None,
    engine: Annotated[
        str | None,
        typer.Option(help="Engine, such as onnxruntime.", show_default="the fastest here"),
    ] = None,
    threads: Annotated[
        int, typer.Option(min=0, help="CPU threads; 0 leaves the choice to the engine.")
    ] = 0,
    no_rebuild: Annotated[
        bool,
        typer.Option("--no-rebuild", help="Refuse a bundle's engine built for another machine."),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object per image.")
    ] = False,
    save: Annotated[
        Path | None,
        typer.Option(file_okay=False, help="Folder for heat maps, masks and overlays."),
    ] = None,
    replay_of: Annotated[
        Path | None,
        typer.Option(
            "--replay",
            help="A record of stpm-live: check it, score its images again, and report differences.",
        ),
    ] = None,
    fail_on_anomaly: Annotated[
        bool,
        typer.Option(
            "--fail-on-anomaly", help="Exit with 3 when an image is anomalous or unaligned."
        ),
    ] = False,
    engines: Annotated[
        bool,
        typer.Option(
            "--engines",
            help="List the engines: whether each is installed, can run here, and in which "
            "precisions; with a bundle, also try each engine with it.",
        ),
    ] = False,
    _c_sources: Annotated[
        bool,
        typer.Option(
            "--c-sources",
            callback=_print_c_sources,
            is_eager=True,
            help="Print the folder of libstpm's header and sources, and exit.",
        ),
    ] = False,
    _version: Version = False,
) -> None:
    """Score images: one line per image with verdict, score and threshold.

    A file that cannot be scored is reported, the others are scored, and the exit code is 1.
    """
    if engines and not images and replay_of is None:
        _print_engines(bundle, as_json)
        return
    if engines or bundle is None or (not images) == (replay_of is None):
        raise typer.BadParameter("give a bundle and images or --replay, or --engines.")
    detector = Detector(bundle, engine, threads=threads, rebuild=not no_rebuild)
    threshold = detector.calibration.image_threshold
    contract = detector.bundle.manifest.input
    note(f"{shown(detector.bundle.path)}: engine {detector.engine_name}, threshold {threshold:.4g}")
    if replay_of is not None:
        _replay(detector, replay_of)
        return
    assert images
    on_disk(save)
    found = find_images(local_arguments(images), save)
    stems = picture_stems(found.images) if save is not None else {}
    for path, stem in stems.items():
        if not path.name.startswith(stem.name):
            note(
                f"{path}: its name is too long for picture files; their names begin with "
                f"{stem.name}"
            )
    verdicts: Counter[Verdict] = Counter()
    for path in found.images:
        try:
            image = load_image(path, contract.bit_depth, contract.channels)
            with about(path):
                result = detector(image)
        except DataError as error:
            note(f"error: {shown(error)}")
            continue
        verdicts[result.verdict] += 1
        say(_line(path, result, as_json))
        if save is not None:
            stem = save / stems[path]
            stem.parent.mkdir(parents=True, exist_ok=True)
            save_pictures(stem, with_channels(image, RGB), result)
    refused = len(found.images) - verdicts.total()
    note(_summary(verdicts, found.left_out, refused))
    if refused:
        raise typer.Exit(1)
    if fail_on_anomaly and verdicts["anomalous"] + verdicts["unaligned"]:
        raise typer.Exit(EXIT_ANOMALY)


def _replay(detector: Detector, path: Path) -> None:
    replayed = replay(detector, path, say)
    note(
        f"{path}: {replayed.same} as recorded, {replayed.different} different, "
        f"{counted(replayed.missing, 'images')} not kept, {replayed.unscored} without a score"
    )
    if not replayed.holds:
        raise typer.Exit(1)


def _print_engines(bundle: Path | None, as_json: bool) -> None:
    """Print what a person with a new machine wants to know; commands that help are in the rows."""
    states = engine_states()
    if bundle is not None:
        bundle = local(bundle)
        Bundle(bundle)  # a bundle that no engine can open is said once
        states = tried_with(bundle, states)
    if as_json:
        say(json.dumps([state.to_dict() for state in states]))
        return
    say(f"{'engine':21} {'version':12} {'native precisions':20} runs here")
    for state in states:
        precisions = "unknown" if state.precisions is None else " ".join(state.precisions)
        runs = "yes" if state.runs else f"no: {state.why_not}"
        say(f"{state.name:21} {state.version or '-':12} {precisions:20} {runs}")


def _summary(verdicts: Counter[Verdict], left_out: Counter[str], refused: int) -> str:
    beside = f" ({counts(left_out)})" if left_out else ""
    warned = f", to be looked at {verdicts['warn']}" if verdicts["warn"] else ""
    unaligned = verdicts["unaligned"]
    not_found = f"; not aligned, and not scored {unaligned}" if unaligned else ""
    return (
        f"scored {verdicts.total() - unaligned}, of which anomalous {verdicts['anomalous']}{warned}"
        f"{not_found}; left out {left_out.total()}{beside}; refused {refused}"
    )


def _line(path: Path, result: Result, as_json: bool) -> str:
    if as_json:
        return json.dumps({"image": shown(path)} | result.summary())
    verdict = "ok" if result.verdict == "ok" else result.verdict.upper()
    score = "-" if result.verdict == "unaligned" else f"{result.score:.6g}"
    return f"{verdict:9}  {score}  {result.threshold:.6g}  {shown(path)}"


main = command(run)
