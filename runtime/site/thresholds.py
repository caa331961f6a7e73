"""New thresholds for a bundle's engines, from good images or by hand; old ones are kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from math import isfinite
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stpm.runtime.bundle.archive import (
    ALIGN,
    SCORING,
    Bundle,
    check_readable,
    write_bundle,
)
from stpm.runtime.bundle.calibration import (
    MOST_STATISTICS,
    Calibration,
    calibrate,
    check_image_count,
    image_threshold,
    kept_values,
    rate_of_threshold,
    smallest_false_alarm_rate,
)
from stpm.runtime.bundle.image_statistics import STATISTICS, image_statistics
from stpm.runtime.bundle.manifest import MOST_FORMER, EngineRecord
from stpm.runtime.bundle.maps import MapStore
from stpm.runtime.detector import Detector
from stpm.runtime.errors import DataError, about
from stpm.runtime.images.preprocess import load_image
from stpm.runtime.output.map_score import UNALIGNED_SCORE, View
from stpm.runtime.site.rule import Rule, Scored, roi_weights, scoring_files

USUAL_RATES = (0.001, 0.01, 0.05)
"""Rates of false alarms that known defects are held against, beside the one asked for."""
BATCH = 8


@dataclass(frozen=True)
class Finds:
    """What a threshold finds of known defects.

    Attributes:
        false_alarm_rate: that the good images give the threshold.
        threshold: of the image's score.
        found: images of defects above it.
        rejected: good images above it.
    """

    false_alarm_rate: float
    threshold: float
    found: int
    rejected: int


def score_images(
    detector: Detector,
    rule: Rule,
    paths: Sequence[Path],
    on_images: Callable[[int], None] = lambda _: None,
) -> Scored:
    """Score files, a few at a time, large ones one by one.

    Args:
        detector: that will run on the line.
        rule: what is to count; says whether and where to the images are aligned.
        paths: at least one.
        on_images: called with the number of images done since the last call.

    Raises:
        DataError: a file cannot be scored.
    """
    contract = detector.bundle.manifest.input
    step = BATCH if detector.bundle.manifest.tiles is None else 1
    maps, scores, sizes = MapStore(), [], []
    views: list[View | None] = []
    measured: list[dict[str, float]] = []
    for start in range(0, len(paths), step):
        batch = paths[start : start + step]
        images = [load_image(path, contract.bit_depth, contract.channels) for path in batch]
        inputs = np.concatenate(
            [_prepared(detector, *one) for one in zip(batch, images, strict=True)]
        )
        if rule.aligner is not None:
            inputs, places = rule.aligner(inputs)
            views += places
        found, of_batch = detector.infer(inputs)
        maps.append(found)
        scores.append(of_batch)
        sizes += [(image.shape[0], image.shape[1]) for image in images]
        measured += map(image_statistics, images)
        on_images(len(batch))
    statistics = {name: [values[name] for values in measured] for name in STATISTICS}
    found_views = None if rule.aligner is None else views
    return Scored(maps, np.concatenate(scores), sizes, statistics, found_views)


def _prepared(detector: Detector, path: Path, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    with about(path):
        return detector.prepare([image])


def check_rates(count: int, false_alarm_rate: float | None, warn_rate: float | None) -> None:
    """Refuse rates that so many good images cannot guarantee, or that contradict each other.

    Raises:
        DataError: too few images, a rate outside (0, 1), or a warn rate below the false-alarm rate.
    """
    if warn_rate is not None and not 0 < warn_rate < 1:
        raise DataError(
            f"got --warn-rate {warn_rate:g}, expected a number above 0 and below 1; correct it."
        )
    if false_alarm_rate is None:
        return
    check_image_count(count, false_alarm_rate)
    if warn_rate is not None and warn_rate < false_alarm_rate:
        raise DataError(
            f"got --warn-rate {warn_rate:g}, expected at least the false-alarm rate of "
            f"{false_alarm_rate:g}, because it includes the rejected parts; raise it."
        )


def from_good_images(
    good: Scored,
    rule: Rule,
    false_alarm_rate: float | None,
    warn_rate: float | None,
    wished: float,
) -> Calibration:
    """Set thresholds from good images' maps and scores; see `calibrate`.

    Several regions of interest have one threshold, with which each region's score is held after
    it was multiplied by a weight: the inverse of its median over the good images, as a share of the
    first region's.

    Args:
        good: what the engine makes of good images, all of them aligned; see `Rule.found`.
        rule: what counts of them.
        false_alarm_rate: asked for; None takes the one `wished`, or the lowest that the images
            support.
        warn_rate: see `calibrate`.
        wished: such as the rate before.

    Raises:
        DataError: too few images, or a warn rate below the false-alarm rate.
    """
    rate = false_alarm_rate
    if rate is None:
        rate = max(wished, smallest_false_alarm_rate(len(good.pred_scores)))
    check_rates(len(good.pred_scores), rate, warn_rate)
    of_good, of_new = roi_weights(good, rule)
    return replace(
        calibrate(rule.scores(good, of_good), rule.maps(good, of_new), rate, warn_rate),
        roi_weights=of_new,
        image_statistics={
            name: kept_values(values, MOST_STATISTICS) for name, values in good.statistics.items()
        },
    )


def on_site(calibration: Calibration) -> Calibration:
    """Date a calibration."""
    return replace(calibration, calibrated=datetime.now(UTC).isoformat(timespec="seconds"))


def by_hand(before: Calibration, threshold: float) -> Calibration:
    """Set the image's threshold; its rate is what the kept scores give it.

    Raises:
        DataError: no scores are kept, or the threshold is not finite.
    """
    if not isfinite(threshold):
        raise DataError(f"got --threshold {threshold}, expected a finite number; correct it.")
    if not before.scores:
        raise DataError(
            "the bundle has no scores of good images from which to compute the false-alarm "
            "rate of a threshold; calibrate it on good images first: stpm-calibrate BUNDLE "
            "GOOD."
        )
    warn = before.warn_threshold
    keeps_warning = warn is not None and warn <= threshold
    rate = min(rate_of_threshold(before.scores, threshold), 1 - 1e-9)
    return replace(
        before,
        image_threshold=threshold,
        # An image that is rejected by its map's maximum shows where.
        pixel_threshold=min(before.pixel_threshold, threshold),
        false_alarm_rate=rate,
        false_alarm_interval=(0.0, 1.0),
        warn_rate=max(before.warn_rate or rate, rate) if keeps_warning else None,
        warn_threshold=warn if keeps_warning else None,
    )


def against_defects(
    good: NDArray[np.float32], bad: NDArray[np.float32], calibration: Calibration
) -> list[Finds]:
    """Say what known defects score at usual rates, at the calibrated one, and with none missed.

    Args:
        good, bad: float32 (N,), scores of good images and of defects.
        calibration: from these good images.

    Returns:
        By falling threshold; the last finds all.
    """
    supported = smallest_false_alarm_rate(len(good))
    rates = {rate for rate in USUAL_RATES if rate >= supported}
    thresholds = {image_threshold(good, rate) for rate in rates} | {calibration.image_threshold}
    # An image is anomalous above the threshold, so that the lowest defect lies above this one.
    scored = bad[bad < UNALIGNED_SCORE]
    if len(scored):
        thresholds.add(float(np.nextafter(scored.min(), np.float32(-np.inf), dtype=np.float32)))
    return [
        Finds(
            rate_of_threshold(good.tolist(), threshold),
            threshold,
            int((bad > threshold).sum()),
            int((good > threshold).sum()),
        )
        for threshold in sorted(thresholds, reverse=True)
    ]


def replaced(record: EngineRecord, calibration: Calibration) -> EngineRecord:
    """Return an engine's record with other thresholds; the former ones are kept."""
    thresholds = replace(record.calibration, scores=(), image_statistics={})
    former = (thresholds, *record.former)[:MOST_FORMER]
    return replace(record, calibration=calibration, former=former)


def write_thresholds(
    bundle: Bundle, calibrations: Mapping[str, Calibration], rule: Rule | None = None
) -> None:
    """Replace a bundle by one with these thresholds by engine, whole or not at all.

    Args:
        bundle: to replace.
        calibrations: by the engine's name; with a rule, of all of its engines.
        rule: what counts from now on; None for what did before.

    Raises:
        BundleError: a file of it cannot be read, or does not match its hash.
    """
    manifest = bundle.manifest
    engines = {
        name: replaced(record, on_site(calibrations[name])) if name in calibrations else record
        for name, record in manifest.engines.items()
    }
    files = {name: bundle.read(name) for name in manifest.files}
    if rule is not None:
        manifest = replace(manifest, scoring=rule.scoring)
        for name in (SCORING, ALIGN):
            files.pop(name, None)
        files |= scoring_files(rule, bundle.golden().anomaly_maps, manifest.golden_size)
    write_bundle(bundle.path, replace(manifest, engines=engines), files, check_readable)
