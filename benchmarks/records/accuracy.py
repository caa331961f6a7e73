"""Accuracy as it is kept: `stpm-bench accuracy` and `baselines`."""

from __future__ import annotations

from typing import Annotated, Literal, NotRequired, TypedDict

from stpm.benchmarks.records.header import NOT_EMPTY, Header

METRICS = {
    "image_auroc": "image AUROC",
    "pixel_auroc": "pixel AUROC",
    "aupro": "AUPRO",
    "pro_rescaled": "rescaled PRO",
}
"""Titles by the names in `stpm.train.metrics.Metrics`."""

Figures = dict[str, float | None]
"""By the names in `stpm.train.metrics.Metrics`; None where the test set does not give one."""
Interval = tuple[float, float]


class Calibration(TypedDict):
    """A bundle's thresholds, see `stpm.runtime.bundle.calibration.Calibration`."""

    image_threshold: float
    pixel_threshold: float
    false_alarm_rate: float
    image_count: int
    false_alarm_interval: Interval


class Decisions(TypedDict):
    """Shares of the good and of the defective images that the threshold rejects."""

    false_alarm_rate: float | None
    detection_rate: float | None


class Roc(TypedDict):
    """Points of the curve of images."""

    fpr: list[float]
    tpr: list[float]


class Pro(TypedDict):
    """Points of the curve of per-region overlap."""

    fpr: list[float]
    overlap: list[float]


class Curves(TypedDict):
    """Either is None where the test set does not give it."""

    roc: Roc | None
    pro: Pro | None


class Image(TypedDict):
    """A test image, named by the kind of its defect and its file.

    Attributes:
        regions: the map's maximum in each defective region; absent of good images and without a
            mask.
    """

    name: str
    score: float
    regions: NotRequired[list[float]]


class Row(TypedDict):
    """A model on an engine; see `stpm.benchmarks.measure.accuracy.Accuracy`.

    Attributes:
        parity: at export, the differences from FP32 torch (absent where the engine could not run
            there) and the tolerance; None of a checkpoint.
    """

    name: str
    engine: str
    precision: str
    seed: NotRequired[int | None]
    parity: NotRequired[dict[str, float] | None]
    image_count: int
    overall: Figures
    intervals: dict[str, Interval]
    by_kind: dict[str, Figures]
    calibration: Calibration | None
    decisions: Decisions | None
    curves: Curves
    images: list[Image]


class Summary(TypedDict):
    """Mean and sample deviation over models on one engine in one precision."""

    engine: str
    precision: str
    count: int
    mean: Figures
    deviation: Figures


class Picture(TypedDict):
    """A picture of a test image, by its path."""

    picture: str
    kind: str
    score: float
    is_anomalous: bool


class AccuracyRecord(Header):
    """A result of kind "accuracy"; rows, summaries and pictures by category."""

    kind: Literal["accuracy"]
    categories: dict[str, Annotated[list[Row], NOT_EMPTY]]
    seeds: dict[str, list[Summary]]
    means: list[Summary]
    gallery: dict[str, list[Picture]]
