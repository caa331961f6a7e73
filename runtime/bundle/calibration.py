"""Thresholds from good images alone, with a guarantee on false alarms (conformal prediction)."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields
from fractions import Fraction
from itertools import pairwise
from reprlib import repr as brief
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stpm.runtime.bundle.maps import Maps
from stpm.runtime.bundle.quantile import nth_highest
from stpm.runtime.errors import BundleError, DataError

INTERVAL_COVERAGE = 0.95
"""How probably `Calibration.false_alarm_interval` holds the true false-alarm rate."""

MOST_SCORES = 2000
"""Scores of good images that are kept with the thresholds."""
MOST_STATISTICS = 200
"""Values of each image statistic that are kept."""
MAX_DATE = 40
"""Characters."""
MOST_WEIGHT = 1e30
"""Of a region of interest."""
OPTIONAL = frozenset(
    {"warn_rate", "warn_threshold", "scores", "calibrated", "roi_weights", "image_statistics"}
)
"""Fields that bundles of schema version 1 lack."""

_BISECTIONS = 50


@dataclass(frozen=True)
class Calibration:
    """The thresholds of one trained model and what they promise.

    Attributes:
        image_threshold: an image with a higher score is anomalous.
        pixel_threshold: a pixel with a higher map value is anomalous.
        false_alarm_rate: the rate that was asked for, in (0, 1).
        image_count: how many good images the thresholds come from.
        false_alarm_interval: (low, high), the 95 % interval of the true rate of false alarms per
            good image.
        warn_rate: the share of good images that may be put aside to be looked at, above the
            false-alarm rate; None without such a limit.
        warn_threshold: an image with a higher score is put aside, if it is not anomalous.
        scores: of the good images, rising; of more than `MOST_SCORES` as many, evenly chosen.
            Empty in bundles of schema version 1.
        calibrated: when on site, as ISO 8601 in UTC; "" at export.
        roi_weights: a factor above 0 for each region of interest, with which its score is held
            against the thresholds; empty without such regions.
        image_statistics: of the good images, rising values by name, at most `MOST_STATISTICS` of
            each; see `stpm.runtime.bundle.image_statistics`.
    """

    image_threshold: float
    pixel_threshold: float
    false_alarm_rate: float
    image_count: int
    false_alarm_interval: tuple[float, float]
    warn_rate: float | None = None
    warn_threshold: float | None = None
    scores: tuple[float, ...] = ()
    calibrated: str = ""
    roi_weights: tuple[float, ...] = ()
    image_statistics: dict[str, tuple[float, ...]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        values = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}
        return values | {
            "image_statistics": {name: list(v) for name, v in self.image_statistics.items()}
        }

    @classmethod
    def from_dict(cls, values: object) -> Calibration:
        """Inverse of `to_dict`, for values that come from a file.

        Raises:
            BundleError: a value is missing, unknown, of a wrong type or out of range.
        """
        names = {known.name for known in fields(cls)}
        needed = names - OPTIONAL
        if not isinstance(values, dict) or not needed <= set(values) <= names:
            got = sorted(map(str, values)) if isinstance(values, dict) else type(values).__name__
            raise BundleError(
                f"calibration: got {got}, expected {sorted(needed)}; export the model again."
            )
        interval = values["false_alarm_interval"]
        if not isinstance(interval, list | tuple) or len(interval) != 2:
            raise _bad_value("false_alarm_interval", "two numbers", interval)
        low, high = (_number("false_alarm_interval", end) for end in interval)
        if not 0 <= low <= high <= 1:
            raise _bad_value("false_alarm_interval", "0 <= low <= high <= 1", interval)
        rate = _number("false_alarm_rate", values["false_alarm_rate"])
        if not 0 < rate < 1:
            raise _bad_value("false_alarm_rate", "a number above 0 and below 1", rate)
        count = values["image_count"]
        if not isinstance(count, int) or isinstance(count, bool) or count < 1:
            raise _bad_value("image_count", "a positive integer", count)
        image_threshold = _number("image_threshold", values["image_threshold"])
        pixel_threshold = _number("pixel_threshold", values["pixel_threshold"])
        warn_rate, warn_threshold = _warn_limit(values, rate, image_threshold)
        scores = _rising("scores", values.get("scores", ()), min(count, MOST_SCORES))
        calibrated = values.get("calibrated", "")
        if not isinstance(calibrated, str) or len(calibrated) > MAX_DATE:
            raise _bad_value("calibrated", f"a text of at most {MAX_DATE} characters", calibrated)
        return cls(
            *(image_threshold, pixel_threshold, rate, count, (low, high)),
            *(warn_rate, warn_threshold, scores, calibrated),
            _weights(values.get("roi_weights", ())),
            _statistics(values.get("image_statistics", {})),
        )


def smallest_false_alarm_rate(image_count: int) -> float:
    """Return the smallest rate that `image_count` good images can guarantee, 1 / (n + 1).

    Raises:
        DataError: there is no image.

    Source: Angelopoulos & Bates, "A Gentle Introduction to Conformal Prediction",
        arXiv 2107.07511, section 1.
    """
    if image_count < 1:
        raise DataError(
            f"calibration has {image_count} good images, expected at least one; add images."
        )
    return 1 / (image_count + 1)


def images_needed(false_alarm_rate: float) -> int:
    """Return the smallest number of good images that can guarantee a rate, ceil(1 / rate) - 1.

    Raises:
        DataError: the rate is not in (0, 1).

    Source: Angelopoulos & Bates, arXiv 2107.07511, section 1.
    """
    return math.ceil(1 / _exact(false_alarm_rate)) - 1


def check_image_count(count: int, false_alarm_rate: float) -> None:
    """Refuse a rate that so many good images cannot guarantee.

    Raises:
        DataError: too few images, or the rate is not in (0, 1).
    """
    needed = images_needed(false_alarm_rate)
    if count < needed:
        # Rounded up, so that the printed rate works when it is asked for.
        supported = math.ceil(Fraction(10**6, count + 1)) / 10**6
        raise DataError(
            f"calibration has {count} good images, but a false-alarm rate of "
            f"{false_alarm_rate:g} needs {needed} or more; add images or choose a rate of "
            f"{supported:g} or more."
        )


def calibrate(
    scores: NDArray[np.float32],
    anomaly_maps: Maps,
    false_alarm_rate: float,
    warn_rate: float | None = None,
) -> Calibration:
    """Set both thresholds from good images that the model was not trained on.

    On a new good image from the same source, the probability of a score above the image threshold
    is at most the rate, as is the expected share of pixels above the pixel threshold where a score
    is its map's maximum. The pixel threshold never exceeds the image threshold, so that an
    anomalous image has an anomalous region.

    Args:
        scores: float32 (N,), one score per image, finite.
        anomaly_maps: float32 (N, H, W), finite; they are read one after the other.
        false_alarm_rate: in (0, 1).
        warn_rate: of good images to be looked at, from the false-alarm rate to 1; None for none.

    Returns:
        The thresholds, with the interval of the true false-alarm rate.

    Raises:
        DataError: shapes that do not fit, values that are not finite, a rate outside (0, 1), or
            too few images for the rate.

    Source: image threshold: Vovk, "Conditional validity of inductive conformal predictors", 2012,
        and Angelopoulos & Bates, arXiv 2107.07511, section 1. Pixel threshold: Angelopoulos et
        al., "Conformal Risk Control", arXiv 2208.02814, theorem 1.
    """
    rate = _exact(false_alarm_rate)
    _check(scores, anomaly_maps)
    count = len(scores)
    check_image_count(count, false_alarm_rate)
    rank = _rank(count, rate)
    pixels = anomaly_maps.shape[1] * anomaly_maps.shape[2]
    flagged = math.floor((rate * (count + 1) - 1) * pixels)
    highest = image_threshold(scores, false_alarm_rate)
    return Calibration(
        image_threshold=highest,
        # A score of the smallest defect that counts may lie below its map's maximum.
        pixel_threshold=min(highest, nth_highest(anomaly_maps, flagged)),
        false_alarm_rate=float(false_alarm_rate),
        image_count=count,
        false_alarm_interval=_false_alarm_interval(count, rank),
        warn_rate=warn_rate,
        warn_threshold=None if warn_rate is None else image_threshold(scores, warn_rate),
        scores=kept_values(scores, MOST_SCORES),
    )


def image_threshold(scores: NDArray[np.float32], false_alarm_rate: float) -> float:
    """Return the score that a new good image exceeds with at most this probability.

    Args:
        scores: float32 (N,), of good images.
        false_alarm_rate: in (0, 1), at least `smallest_false_alarm_rate`.

    Raises:
        DataError: there are too few images for the rate.
    """
    check_image_count(len(scores), false_alarm_rate)
    rank = _rank(len(scores), _exact(false_alarm_rate))
    return float(np.partition(scores, rank - 1)[rank - 1])


def rate_of_threshold(scores: Sequence[float], threshold: float) -> float:
    """Return the false-alarm rate that good images' scores give a threshold: at most 1."""
    return (1 + sum(score > threshold for score in scores)) / (len(scores) + 1)


def kept_values(values: NDArray[Any] | Sequence[float], most: int) -> tuple[float, ...]:
    """Return values in rising order, of more than `most` as many, evenly chosen."""
    rising = np.sort(values)
    if len(rising) > most:
        rising = rising[np.linspace(0, len(rising) - 1, most).round().astype(int)]
    return tuple(map(float, rising))


def _rank(count: int, rate: Fraction) -> int:
    return math.ceil((count + 1) * (1 - rate))


def _warn_limit(
    values: dict[str, Any], rate: float, threshold: float
) -> tuple[float | None, float | None]:
    warn_rate, warn_threshold = values.get("warn_rate"), values.get("warn_threshold")
    if warn_rate is None and warn_threshold is None:
        return None, None
    limit = _number("warn_threshold", warn_threshold)
    if limit > threshold:
        raise _bad_value("warn_threshold", "a number up to image_threshold", limit)
    share = _number("warn_rate", warn_rate)
    if not rate <= share < 1:
        raise _bad_value("warn_rate", "a number from false_alarm_rate to below 1", share)
    return share, limit


def _rising(name: str, values: object, most: int) -> tuple[float, ...]:
    if not isinstance(values, list | tuple) or len(values) > most:
        raise _bad_value(name, f"a list of at most {most} numbers", values)
    numbers = tuple(_number(name, value) for value in values)
    if any(low > high for low, high in pairwise(numbers)):
        raise _bad_value(name, "ascending numbers", "others")
    return numbers


def _statistics(values: object) -> dict[str, tuple[float, ...]]:
    if not isinstance(values, dict):
        raise _bad_value("image_statistics", "an object", values)
    return {
        str(name): _rising("image_statistics", kept, MOST_STATISTICS)
        for name, kept in values.items()
    }


def _weights(values: object) -> tuple[float, ...]:
    if not isinstance(values, list | tuple):
        raise _bad_value("roi_weights", "a list of numbers", values)
    weights = tuple(_number("roi_weights", value) for value in values)
    if not all(0 < weight < MOST_WEIGHT for weight in weights):
        raise _bad_value("roi_weights", f"numbers above 0 and below {MOST_WEIGHT:g}", values)
    return weights


def _exact(false_alarm_rate: float) -> Fraction:
    if not 0 < false_alarm_rate < 1:
        raise DataError(
            f"the false-alarm rate is {false_alarm_rate}, expected a number above 0 and "
            "below 1; correct it."
        )
    exact = Fraction(float(false_alarm_rate))
    # 0.01 as a float lies above 1/100, and products with it land on the wrong side of an integer.
    meant = exact.limit_denominator(10**9)
    return meant if 0 < meant < 1 else exact


def _check(scores: NDArray[np.float32], anomaly_maps: Maps) -> None:
    shape = anomaly_maps.shape
    fits = scores.ndim == 1 and len(shape) == 3 and len(scores) == len(anomaly_maps)
    if not fits or 0 in shape:
        raise DataError(
            f"calibration has scores of shape {scores.shape} and maps of shape "
            f"{shape}, expected (N,) and (N, H, W) of one or more good images."
        )
    if not (np.isfinite(scores).all() and all(np.isfinite(one).all() for one in anomaly_maps)):
        raise DataError(
            "calibration has scores or maps that are not finite; check the images and the training."
        )


def _false_alarm_interval(count: int, rank: int) -> tuple[float, float]:
    """Return the equal-tailed interval of Beta(n + 1 - rank, rank), the law of the true rate.

    It is exact for scores without ties; ties only make the true rate lower.

    Source: Vovk 2012, and Angelopoulos & Bates, arXiv 2107.07511, section 3.2.
    """
    tail = (1 - INTERVAL_COVERAGE) / 2
    alarms = np.arange(count + 1 - rank)
    log_choose = np.array(
        [math.lgamma(count + 1) - math.lgamma(j + 1) - math.lgamma(count - j + 1) for j in alarms]
    )

    def beta_cdf(rate: float) -> float:
        # P(Beta(a, b) <= x) = P(Binomial(a + b - 1, x) >= a) for integers a and b.
        logs = log_choose + alarms * math.log(rate) + (count - alarms) * math.log1p(-rate)
        return 1 - float(np.exp(logs).sum())

    return _bisect(beta_cdf, tail), _bisect(beta_cdf, 1 - tail)


def _bisect(rising: Callable[[float], float], level: float) -> float:
    low, high = 0.0, 1.0
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if rising(middle) < level else (low, middle)
    return (low + high) / 2


def _number(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _bad_value(name, "a number", value)
    # math.isfinite raises for an integer too large for a float; a comparison does not.
    if not abs(value) <= sys.float_info.max:
        raise _bad_value(name, "a finite number", value)
    return float(value)


def _bad_value(name: str, expected: str, got: object) -> BundleError:
    return BundleError(
        f"calibration: {name} is {brief(got)}, expected {expected}; export the model again."
    )
