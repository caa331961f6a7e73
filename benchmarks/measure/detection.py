"""The share of defects that are found at the false alarms one accepts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta

from stpm.benchmarks.records.accuracy import Image, Row
from stpm.train.datasets import GOOD

RATES = (0.01, 0.05)
"""False alarms among the good test images at which everyone is compared."""
COVERAGE = 0.95


@dataclass(frozen=True)
class Share:
    """How many of a number; it may be of none."""

    count: int
    of: int

    @property
    def interval(self) -> tuple[float, float]:
        """The 95% interval of the true share by Clopper and Pearson; (0, 1) of none."""
        if not self.of:
            return 0.0, 1.0
        tail, missing = (1 - COVERAGE) / 2, self.of - self.count
        low = beta.ppf(tail, self.count, missing + 1) if self.count else 0.0
        high = beta.ppf(1 - tail, self.count + 1, missing) if missing else 1.0
        return float(low), float(high)

    def __str__(self) -> str:
        return f"{self.count} of {self.of}"


@dataclass(frozen=True)
class Detection:
    """What a threshold does on the test set.

    Attributes:
        at: what the threshold was chosen by.
        threshold: an image with a higher score is rejected.
        false_alarms: good images that are rejected.
        found: defective images that are rejected.
        regions: defective regions in which a pixel of the map exceeds the threshold; of none
            where there are no masks.
    """

    at: str
    threshold: float
    false_alarms: Share
    found: Share
    regions: Share


def is_good(image: Image) -> bool:
    """Tell the image of a good part by its name."""
    return image["name"].startswith(f"{GOOD}/")


def detections(row: Row) -> list[Detection]:
    """Return what a row's thresholds do: its own, those of `RATES`, and one that misses nothing.

    Of a test set of good or of defective images alone only its own.
    """
    good = np.sort([image["score"] for image in row["images"] if is_good(image)])[::-1]
    bad = np.array([image["score"] for image in row["images"] if not is_good(image)])
    regions = np.array([score for image in row["images"] for score in image.get("regions", ())])
    thresholds: list[tuple[str, float]] = []
    if row["calibration"]:
        asked = row["calibration"]["false_alarm_rate"]
        text = f"calibrated for {asked:.1%} false alarms"
        thresholds.append((text, row["calibration"]["image_threshold"]))
    if len(good) and len(bad):
        for rate in RATES:
            allowed = int(rate * len(good) + 1e-9)
            thresholds.append((f"up to {rate:.0%} false alarms", float(good[allowed])))
        thresholds.append(("all defects found", float(np.nextafter(bad.min(), -np.inf))))
    return [
        Detection(at, t, _above(good, t), _above(bad, t), _above(regions, t))
        for at, t in thresholds
    ]


def _above(scores: NDArray[np.float64], threshold: float) -> Share:
    return Share(int((scores > threshold).sum()), len(scores))
