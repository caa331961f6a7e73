"""`stpm-calibrate`: thresholds that belong to the line."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from stpm.runtime.backends import Outputs, installed_engines
from stpm.runtime.bundle.archive import Bundle
from stpm.runtime.bundle.calibration import Calibration
from stpm.runtime.detector import Detector
from stpm.runtime.images.listing import counts, find_images
from stpm.runtime.output.console import Version, command, note, progress, say
from stpm.runtime.site.thresholds import (
    Finds,
    against_defects,
    by_hand,
    from_good_images,
    score_images,
    write_thresholds,
)


def calibrate(
    bundle: Annotated[Path, typer.Argument(help="The folder NAME.stpm; its thresholds change.")],
    good: Annotated[
        list[str] | None,
        typer.Argument(help="Good images of this camera and light: files, folders or globs."),
    ] = None,
    false_alarm_rate: Annotated[
        float | None,
        typer.Option(
            help="Share of good parts that may be rejected.",
            show_default="as before, or the lowest that the images support",
        ),
    ] = None,
    warn_rate: Annotated[
        float | None,
        typer.Option(
            help="Share of good parts that may be put aside to be looked at, the rejected among "
            "them.",
            show_default="no such limit",
        ),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(help="Set the score's threshold by hand, with no images.", show_default=""),
    ] = None,
    bad: Annotated[
        list[str] | None,
        typer.Option(help="Images of known defects: says what is found. May be repeated."),
    ] = None,
    engine: Annotated[
        list[str] | None,
        typer.Option(
            help="Engine to calibrate; may be repeated.",
            show_default="all that the bundle names and that run here",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say it, and leave the bundle as it is.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    _version: Version = False,
) -> None:
    """Set a bundle's thresholds on site, from good images or by hand.

    The bundle is replaced whole or not at all, and keeps the thresholds that it had.
    """
    if (threshold is None) == (not good):
        raise typer.BadParameter("give good images, or --threshold without images.")
    if threshold is not None and (bad or false_alarm_rate or warn_rate):
        raise typer.BadParameter(
            "--threshold takes no --bad, --false-alarm-rate or --warn-rate; calibrate on images."
        )
    opened = Bundle(bundle)
    names = engine or [n for n in installed_engines() if n in opened.manifest.engines]
    detectors = [Detector(opened, name) for name in names] or [Detector(opened)]
    found: dict[str, Calibration] = {}
    defects: dict[str, list[Finds]] = {}
    good_paths, bad_paths = _images(good or []), _images(bad or [])
    for detector in detectors:
        name, before = detector.engine_name, detector.calibration
        if threshold is not None:
            found[name] = by_hand(before, threshold)
            continue
        outputs = _scored(detector, "good images", good_paths)
        found[name] = from_good_images(
            outputs, false_alarm_rate, warn_rate, before.false_alarm_rate
        )
        if bad_paths:
            _, bad_scores = _scored(detector, "defects", bad_paths)
            defects[name] = against_defects(outputs[1], bad_scores, found[name])
    if not dry_run:
        write_thresholds(opened, found)
    if as_json:
        say(json.dumps(_as_plain(found, defects)))
    else:
        for name, calibration in found.items():
            say(_line(name, opened.manifest.engines[name].calibration, calibration))
            for line in _table(bundle, defects.get(name, []), len(bad_paths)):
                say(line)
    for name in opened.manifest.engines.keys() - found.keys():
        note(f"{name}: keeps its thresholds, which are of other images; calibrate where it runs")
    note(f"{bundle}: {'left as it is' if dry_run else 'has these thresholds'}")


def _images(arguments: list[str]) -> list[Path]:
    if not arguments:
        return []
    found = find_images(arguments)
    if found.left_out:
        note(f"left out: {counts(found.left_out)}")
    return found.images


def _scored(detector: Detector, label: str, paths: list[Path]) -> Outputs:
    with progress(f"{detector.engine_name}, {label}", len(paths)) as on_images:
        return score_images(detector, paths, on_images)


def _line(name: str, before: Calibration, after: Calibration) -> str:
    low, high = after.false_alarm_interval
    interval = f", 95% interval {low:.2%} to {high:.2%}" if (low, high) != (0, 1) else ""
    warn = ""
    if after.warn_threshold is not None and after.warn_rate is not None:
        warn = f"; to be looked at above {after.warn_threshold:.4g} ({after.warn_rate:.2%})"
    return (
        f"{name}: threshold {after.image_threshold:.4g}, before {before.image_threshold:.4g}, "
        f"for {after.false_alarm_rate:.2%} false alarms ({after.image_count} good images"
        f"{interval}){warn}"
    )


def _table(bundle: Path, rows: list[Finds], total: int) -> list[str]:
    lines = [
        f"  above {row.threshold:.4g}: {row.found} of {total} defects found, {row.rejected} good "
        f"images rejected, {row.false_alarm_rate:.2%} false alarms promised"
        for row in rows
    ]
    if rows:
        lines.append(f"  all found: stpm-calibrate {bundle} --threshold {rows[-1].threshold!r}")
    return lines


def _as_plain(
    found: dict[str, Calibration], defects: dict[str, list[Finds]]
) -> dict[str, dict[str, object]]:
    return {
        name: {
            "calibration": calibration.to_dict(),
            "defects": [asdict(row) for row in defects.get(name, [])],
        }
        for name, calibration in found.items()
    }


main = command(calibrate)
