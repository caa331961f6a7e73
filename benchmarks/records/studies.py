"""Studies and measurements run by hand as they are kept."""

from __future__ import annotations

from typing import Literal, TypedDict

from stpm.benchmarks.records.accuracy import Figures
from stpm.benchmarks.records.header import Header
from stpm.benchmarks.records.speed import Ratio


class Precision(TypedDict):
    """A precision against FP32 on the labelled images of a model's category."""

    precision: str
    image_count: int
    rank_correlation: float
    map_difference: float
    score_difference: float
    fp32: Figures
    reduced: Figures


class LowPrecisionRecord(Header):
    """A result of kind "low_precision": comparisons by model."""

    kind: Literal["low_precision"]
    engine: str
    comparisons: dict[str, list[Precision]]


class Effect(TypedDict):
    """A choice in the graph undone; see `stpm.benchmarks.studies.graph_ablation.Effect`."""

    name: str
    time: Ratio
    scatter: float
    lift: float
    map_difference: float


class GraphAblationRecord(Header):
    """A result of kind "graph_ablation"."""

    kind: Literal["graph_ablation"]
    engine: str
    precision: str
    effects: list[Effect]


class LibstpmRecord(Header):
    """A result of kind "libstpm": medians and raw values by name; sizes are (height, width)."""

    kind: Literal["libstpm"]
    frame_size: list[int]
    input_size: list[int]
    rounds: int
    median: dict[str, float]
    overhead_share_of_engine: float
    largest_allocations_a_run: float
    resize_times_faster_than_pillow: float
    raw: dict[str, list[float]]


class Epoch(TypedDict):
    """An epoch of either program."""

    loss: float
    seconds: float


class TrainingSpeedRecord(Header):
    """A result of kind "training_speed": epochs of stpm-train and of a plain script in turn."""

    kind: Literal["training_speed"]
    precision: str
    threads: int
    images: list[int]
    stpm_train: list[Epoch]
    plain_script: list[Epoch]
    median_seconds: float
    plain_script_ratio: float
    gflop: float
    matrix_gflop_per_second: float
    least_seconds: float


class ScoredModel(TypedDict):
    """A model's image AUROC by score; see `stpm.train.methods.image_score.ImageScore`."""

    name: str
    method: str
    category: str
    image_count: int
    image_auroc: dict[str, float]


class ImageScoresRecord(Header):
    """A result of kind "image_scores": several readings of the same maps."""

    kind: Literal["image_scores"]
    scored: list[ScoredModel]


class AlignedCase(TypedDict):
    """Test images as they lie or moved, scored with the bundle's aligner or without.

    Counts are of images. One that is not aligned counts as rejected, or found.
    """

    images: str
    aligned: bool
    image_auroc: float | None
    pixel_auroc: float | None
    aupro: float | None
    good_rejected: int
    defects_found: int
    good_unaligned: int
    defects_unaligned: int


class Limits(TypedDict):
    """See `stpm.runtime.bundle.alignment.Alignment`."""

    size: list[int]
    shift: float
    degrees: float
    correlation: float


class Movement(TypedDict):
    """See `stpm.benchmarks.studies.movement.Movement`."""

    shift: float
    degrees: float
    seed: int


class AlignmentRecord(Header):
    """A result of kind "alignment".

    `apart_px` is how far the places of moved images are from where they should be, at the farthest
    corner; `ms` medians of the processor time of an image on one thread, with and without aligning.
    """

    kind: Literal["alignment"]
    category: str
    engine: str
    good_count: int
    defect_count: int
    rois: list[str]
    limits: Limits
    disturbance: Movement
    cases: list[AlignedCase]
    apart_px: dict[str, float | None]
    ms: dict[str, float]


class AblationLine(TypedDict):
    """A line of an ablation's file: one training and what came of it."""

    axis: str
    cell: str
    category: str
    seed: int
    epochs: int
    metrics: Figures
