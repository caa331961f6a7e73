"""`stpm-run`: score images with a bundle."""

from __future__ import annotations

import glob
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer

from stpm.runtime.console import Version, command, note
from stpm.runtime.detector import Detector
from stpm.runtime.errors import DataError
from stpm.runtime.overlay import save_pictures
from stpm.runtime.preprocess import IMAGE_SUFFIXES, load_image
from stpm.runtime.result import Result

EXIT_ANOMALY = 3
C_SOURCES = Path(__file__).parent / "c"


def _print_c_sources(wanted: bool) -> None:
    if wanted:
        typer.echo(C_SOURCES)
        raise typer.Exit


def run(
    bundle: Annotated[Path, typer.Argument(help="The folder NAME.stpm.")],
    images: Annotated[
        list[str],
        typer.Argument(help="Files, folders, globs, or - for a list of paths on standard input."),
    ],
    engine: Annotated[
        str | None,
        typer.Option(help="Such as onnxruntime.", show_default="the fastest that can run here"),
    ] = None,
    threads: Annotated[
        int, typer.Option(min=0, help="Processor threads; 0 leaves the choice to the engine.")
    ] = 0,
    no_rebuild: Annotated[
        bool,
        typer.Option("--no-rebuild", help="Refuse a bundle's engine built for another machine."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object an image.")] = False,
    save: Annotated[
        Path | None,
        typer.Option(file_okay=False, help="Folder for heat maps, masks and overlays."),
    ] = None,
    fail_on_anomaly: Annotated[
        bool, typer.Option("--fail-on-anomaly", help="Exit with 3 when an image is anomalous.")
    ] = False,
    _c_sources: Annotated[
        bool,
        typer.Option(
            "--c-sources",
            callback=_print_c_sources,
            is_eager=True,
            help="Print the folder with libstpm's header and sources, and exit.",
        ),
    ] = False,
    _version: Version = False,
) -> None:
    """Score images: one line each with the verdict, the score and the threshold.

    A file that cannot be scored is reported and the others are scored; the exit code is then 1.
    """
    detector = Detector(bundle, engine, threads=threads, rebuild=not no_rebuild)
    threshold = detector.calibration.image_threshold
    note(f"{bundle}: engine {detector.engine_name}, threshold {threshold:.4g}")
    bad, anomalous = 0, 0
    paths = list(find_images(images))
    stems = picture_stems(paths)
    for path in paths:
        try:
            image = load_image(path)
            result = detector(image)
        except DataError as error:
            bad += 1
            note(f"error: {error}")
            continue
        anomalous += result.is_anomalous
        typer.echo(_line(path, result, as_json))
        if save is not None:
            stem = save / stems[path]
            stem.parent.mkdir(parents=True, exist_ok=True)
            save_pictures(stem, image, result)
    if bad:
        note(f"{bad} of the files could not be scored")
        raise typer.Exit(1)
    if fail_on_anomaly and anomalous:
        raise typer.Exit(EXIT_ANOMALY)


def find_images(arguments: list[str]) -> Iterator[Path]:
    """Expand files, folders (recursively), globs and - (paths on standard input), in order.

    Raises:
        DataError: a folder, a pattern or standard input names no image.
    """
    for argument in arguments:
        if argument == "-":
            yield from _some("-", [Path(line) for line in map(str.strip, sys.stdin) if line])
        elif Path(argument).is_dir():
            yield from _some(argument, sorted(filter(_is_image, Path(argument).rglob("*"))))
        elif glob.has_magic(argument) and not Path(argument).exists():
            # Path.glob takes no absolute pattern.
            found = glob.glob(argument, recursive=True)  # noqa: PTH207
            yield from _some(argument, sorted(filter(Path.is_file, map(Path, found))))
        else:
            yield Path(argument)


def picture_stems(paths: Sequence[Path]) -> dict[Path, Path]:
    """Name each image's pictures: its path below the images' common folder, without suffix.

    Where two files differ in the suffix alone, it stays in the name; no two names are equal.
    """
    if not paths:
        return {}
    # With "..", a name would lead out of the folder for the pictures.
    whole = [Path(os.path.normpath(path.absolute())) for path in paths]
    root = Path(os.path.commonpath([path.parent for path in whole]))
    names = [path.relative_to(root) for path in whole]
    bare = {name: name.with_suffix("") for name in names}
    count = Counter([*bare.values(), *bare])
    return {
        path: bare[name] if count[bare[name]] == 1 else name
        for path, name in zip(paths, names, strict=True)
    }


def _some(argument: str, paths: list[Path]) -> list[Path]:
    if not paths:
        raise DataError(f"{argument}: matches no image; check the path.")
    return paths


def _is_image(path: Path) -> bool:
    return path.is_file() and path.suffix.lower() in IMAGE_SUFFIXES


def _line(path: Path, result: Result, as_json: bool) -> str:
    if as_json:
        return json.dumps({"image": str(path)} | result.summary())
    verdict = "ANOMALOUS" if result.is_anomalous else "ok"
    return f"{verdict:9}  {result.score:.6g}  {result.threshold:.6g}  {path}"


main = command(run)
