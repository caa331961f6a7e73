"""`stpm-calibrate`: thresholds that belong to the line."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from math import ceil
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from stpm.runtime.backends import installed_engines
from stpm.runtime.bundle.archive import Bundle
from stpm.runtime.bundle.calibration import Calibration, smallest_false_alarm_rate
from stpm.runtime.bundle.scoring import MAX_AREA
from stpm.runtime.detector import Detector
from stpm.runtime.errors import DataError
from stpm.runtime.images.listing import counts, find_images
from stpm.runtime.images.preprocess import image_sizes
from stpm.runtime.output.console import Version, command, counted, note, progress, say
from stpm.runtime.site.align import LIMIT, Limit, align_to, check_whole_images
from stpm.runtime.site.rois import read_rois
from stpm.runtime.site.rule import Rule, Scored, make_rule, rule_of
from stpm.runtime.site.thresholds import (
    Finds,
    against_defects,
    by_hand,
    check_rates,
    from_good_images,
    score_images,
    write_thresholds,
)
from stpm.runtime.store import is_remote, local, local_arguments


def calibrate(
    bundle: Annotated[
        Path, typer.Argument(help="The folder NAME.stpm, whose thresholds are replaced.")
    ],
    good: Annotated[
        list[str] | None,
        typer.Argument(
            help="Good images under this camera and lighting: files, folders, globs or s3://..."
        ),
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
            help="Share of good parts that may be put aside for inspection, including those "
            "rejected.",
            show_default="no warning limit",
        ),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(help="Set the image threshold by hand, without images.", show_default=""),
    ] = None,
    bad: Annotated[
        list[str] | None,
        typer.Option(
            help="Images of known defects, to report how many are found. May be repeated."
        ),
    ] = None,
    roi: Annotated[
        list[str] | None,
        typer.Option(
            help="Region of interest, [NAME=]FILE: a mask of the images' size, black outside, or "
            "polygons in JSON. May be repeated.",
            show_default="as before",
        ),
    ] = None,
    ignore: Annotated[
        list[Path] | None,
        typer.Option(
            help="Region to ignore, a file as for --roi. May be repeated.",
            show_default="as before",
        ),
    ] = None,
    whole_image: Annotated[
        bool, typer.Option("--whole-image", help="Remove the bundle's regions of interest.")
    ] = False,
    align: Annotated[
        Path | None,
        typer.Option(
            help="Image of a good part: parts that lie shifted and turned are brought to it first.",
            show_default="as before",
        ),
    ] = None,
    align_limit: Annotated[
        str | None,
        typer.Option(
            help="How far a part may lie from --align: SHIFT,DEGREES, the shift in % of the "
            "longer side or in pixels.",
            show_default=LIMIT,
        ),
    ] = None,
    no_align: Annotated[
        bool, typer.Option("--no-align", help="Drop the bundle's reference.")
    ] = False,
    min_area: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=MAX_AREA,
            help="Smallest defect that counts, in pixels of the image; 0 for any.",
            show_default="as before",
        ),
    ] = None,
    engine: Annotated[
        list[str] | None,
        typer.Option(
            help="Engine to calibrate; may be repeated.",
            show_default="all that the bundle lists and that run here",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the result, but do not change the bundle.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    _version: Version = False,
) -> None:
    """Set a bundle's thresholds on site, from good images or by hand.

    The bundle is replaced as a whole or not at all, and keeps a record of its old thresholds.
    """
    asked = _Asked(roi or [], ignore or [], whole_image, min_area, align, align_limit, no_align)
    asked.check()
    if (threshold is None) == (not good):
        raise typer.BadParameter("give either good images or --threshold.")
    rates = (false_alarm_rate, warn_rate)
    if threshold is not None and (bad or not asked.is_nothing or rates != (None, None)):
        raise typer.BadParameter(
            "--threshold cannot be combined with other limits, regions or --bad; calibrate "
            "on good images instead."
        )
    if is_remote(bundle) and not dry_run:
        raise DataError(
            f"{bundle}: is in a store, and thresholds are changed on disk; copy it here first, or "
            "use --dry-run."
        )
    opened = Bundle(local(bundle))
    names = engine or [n for n in installed_engines() if n in opened.manifest.engines]
    detectors = [Detector(opened, name) for name in names] or [Detector(opened)]
    before = rule = rule_of(opened)
    bad_paths = _images(bad or [])
    defects: dict[str, list[Finds]] = {}
    if threshold is not None:
        found = {one.engine_name: _by_hand(one, threshold) for one in detectors}
    else:
        good_paths, found = _images(good or []), {}
        check_rates(len(good_paths), *rates)
        rule = _rule(opened, before, good_paths, asked)
        for one in detectors:
            name = one.engine_name
            found[name], of_good = _from_good_images(one, rule, good_paths, *rates)
            if bad_paths:
                defects[name] = _against_defects(one, rule, found[name], of_good, bad_paths)
    first, calibrated = next(iter(found.items()))
    absent = [name for name in opened.manifest.engines if name not in found]
    if rule is not before:
        # Their former thresholds are of other scores.
        found |= dict.fromkeys(absent, calibrated)
    if not dry_run:
        write_thresholds(opened, found, None if rule is before else rule)
    if as_json:
        say(json.dumps(_as_plain(found, defects)))
    else:
        for name, calibration in found.items():
            say(_line(name, opened.manifest.engines[name].calibration, calibration))
            for line in _table(bundle, defects.get(name, []), len(bad_paths)):
                say(line)
    for name in absent:
        what = (
            "keeps its thresholds, which are of other images"
            if rule is before
            else f"has those of {first}, since a score is another now"
        )
        note(f"{name}: {what}; calibrate where it runs")
    note(f"{bundle}: {'left as it is' if dry_run else 'has these thresholds'}")


def _by_hand(detector: Detector, threshold: float) -> Calibration:
    before = detector.calibration
    found = by_hand(before, threshold)
    if before.warn_threshold is not None and found.warn_threshold is None:
        note(
            f"{detector.engine_name}: the warning limit {before.warn_threshold:.4g} is above it, "
            "and removed"
        )
    return found


def _from_good_images(
    detector: Detector,
    rule: Rule,
    paths: list[Path],
    false_alarm_rate: float | None,
    warn_rate: float | None,
) -> tuple[Calibration, Scored]:
    """Calibrate an engine, and say what its images allow; returns what it made of them, too."""
    name = detector.engine_name
    scored = rule.found(_scored(detector, rule, "good images", paths))
    count = len(scored.image_sizes)
    if count < len(paths):
        note(
            f"{name}: {len(paths) - count} of {len(paths)} good images cannot be aligned; the line "
            "would reject as many, beside the false alarms below: widen --align-limit, or "
            "align by shifts alone (10%,0)"
        )
    wished = detector.calibration.false_alarm_rate
    found = from_good_images(scored, rule, false_alarm_rate, warn_rate, wished)
    possible = smallest_false_alarm_rate(count)
    if false_alarm_rate is None and possible < found.false_alarm_rate:
        note(
            f"{name}: these {count} images would allow {possible:.2%} false alarms: "
            f"--false-alarm-rate {ceil(1e4 * possible) / 1e4:g}"
        )
    return found, scored


def _against_defects(
    detector: Detector,
    rule: Rule,
    calibration: Calibration,
    good: Scored,
    paths: list[Path],
) -> list[Finds]:
    bad = _scored(detector, rule, "defects", paths)
    weights = calibration.roi_weights
    return against_defects(rule.scores(good, weights), rule.scores(bad, weights), calibration)


@dataclass(frozen=True)
class _Asked:
    """What is to count from now on, as the flags say it."""

    rois: list[str]
    ignored: list[Path]
    whole_image: bool
    min_area: int | None
    align: Path | None
    align_limit: str | None
    no_align: bool

    @property
    def is_nothing(self) -> bool:
        flags = (self.rois, self.ignored, self.whole_image, self.align, self.no_align)
        return not any(flags) and self.min_area is None

    def check(self) -> None:
        """Refuse flags that contradict each other."""
        if self.whole_image and (self.rois or self.ignored):
            raise typer.BadParameter(
                "--whole-image removes regions, so it cannot be combined with --roi and --ignore; "
                "leave one out."
            )
        if self.align_limit is not None and self.align is None:
            raise typer.BadParameter("--align-limit needs --align.")
        if self.align is not None and self.no_align:
            raise typer.BadParameter("--no-align removes the reference, so leave --align out.")


def _rule(bundle: Bundle, before: Rule, good: list[Path], asked: _Asked) -> Rule:
    """Return what is to count; the very `before` where nothing else was asked for."""
    if asked.is_nothing:
        return before
    manifest, scoring, labels = bundle.manifest, before.scoring, before.labels
    reference = before.reference
    sizes = image_sizes(good, manifest.input.bit_depth)
    if asked.no_align:
        scoring, reference = replace(scoring, align=None), None
    if asked.align is not None:
        _check_regions(bundle, before, asked)
        check_whole_images(bundle.path, manifest.tiles is not None)
        limit = Limit.parse(asked.align_limit or LIMIT)
        alignment, reference = align_to(local(asked.align), limit, good, manifest.input)
        scoring = replace(scoring, align=alignment)
    if asked.rois or asked.ignored:
        drawn_on = sizes[0] if scoring.align is None else scoring.align.size
        names, labels = read_rois(asked.rois, asked.ignored, drawn_on, manifest.map_size)
        scoring = replace(scoring, rois=names)
    if asked.whole_image:
        labels = np.ones(manifest.map_size, np.uint8)
        scoring = replace(scoring, rois=())
    if asked.min_area is not None:
        scoring = replace(scoring, min_area=asked.min_area)
    rule = make_rule(scoring, labels, sizes, reference)
    unchanged = scoring == before.scoring and reference is before.reference
    return before if unchanged and np.array_equal(labels, before.labels) else rule


def _check_regions(bundle: Bundle, before: Rule, asked: _Asked) -> None:
    """Refuse another reference for regions that were drawn on the former one."""
    drawn_anew = asked.rois or asked.ignored or asked.whole_image
    if before.reference is not None and before.scoring.rois and not drawn_anew:
        raise DataError(
            f"{bundle.path}: its regions of interest were drawn on another reference, expected "
            f"ones drawn on {asked.align}; give --roi again, or --whole-image."
        )


def _images(arguments: list[str]) -> list[Path]:
    if not arguments:
        return []
    found = find_images(local_arguments(arguments))
    if found.left_out:
        note(f"left out: {counts(found.left_out)}")
    return found.images


def _scored(detector: Detector, rule: Rule, label: str, paths: list[Path]) -> Scored:
    with progress(f"{detector.engine_name}, {label}", len(paths)) as on_images:
        return score_images(detector, rule, paths, on_images)


def _line(name: str, before: Calibration, after: Calibration) -> str:
    low, high = after.false_alarm_interval
    interval = f", 95% interval {low:.2%} to {high:.2%}" if (low, high) != (0, 1) else ""
    warn = ""
    if after.warn_threshold is not None and after.warn_rate is not None:
        warn = f"; inspect above {after.warn_threshold:.4g} ({after.warn_rate:.2%})"
    images = counted(after.image_count, "good images")
    return (
        f"{name}: threshold {after.image_threshold:.4g}, before {before.image_threshold:.4g}, "
        f"for {after.false_alarm_rate:.2%} false alarms ({images}{interval}){warn}"
    )


def _table(bundle: Path, rows: list[Finds], total: int) -> list[str]:
    lines = [
        f"  above {row.threshold:.4g}: {row.found} of {total} defects found, "
        f"{counted(row.rejected, 'good images')} rejected, {row.false_alarm_rate:.2%} false "
        "alarms expected at most"
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
