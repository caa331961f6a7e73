"""A fleet as it is kept: `stpm-fleet train`."""

from __future__ import annotations

from typing import Annotated, Literal, NotRequired, TypedDict

from stpm.benchmarks.records.header import NOT_EMPTY, Header


class Doubtful(TypedDict):
    """A test image that is nearest to the wrong verdict, or has it: kind of defect and name."""

    name: str
    score: float


class FleetModel(TypedDict):
    """A product, camera and seed; the figures of one that failed are absent, its reason is `error`.

    Attributes:
        camera, category: of its images; absent in files that were written before there were any,
            empty where it has none.
        seconds: that its last worker took.
        reused: whether it was done in an earlier run.
        threshold, false_alarm_rate: of the bundle's first engine, `engine`.
        figures: image_auroc, pixel_auroc and aupro; empty without labelled images.
        doubtful: good parts from the highest score down and defects from the lowest up, in turn.
    """

    name: str
    product: str
    seed: int
    camera: NotRequired[str]
    category: NotRequired[str]
    seconds: float
    reused: bool
    error: NotRequired[str]
    key: NotRequired[str]
    engine: NotRequired[str]
    threshold: NotRequired[float]
    false_alarm_rate: NotRequired[float]
    size_bytes: NotRequired[int]
    manifest_sha256: NotRequired[str]
    figures: NotRequired[dict[str, float | None]]
    doubtful: NotRequired[list[Doubtful]]


class FleetRecord(Header):
    """A result of kind "fleet"."""

    kind: Literal["fleet"]
    fleet: Annotated[list[FleetModel], NOT_EMPTY]
