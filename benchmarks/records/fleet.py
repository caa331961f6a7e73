"""A fleet as it is kept: `stpm-fleet train`."""

from __future__ import annotations

from typing import Annotated, Literal, NotRequired, TypedDict

from stpm.benchmarks.records.header import NOT_EMPTY, Header


class FleetModel(TypedDict):
    """A product and seed; the figures of one that failed are absent, its reason is `error`.

    Attributes:
        seconds: that its last worker took.
        reused: whether it was done in an earlier run.
        threshold, false_alarm_rate: of the bundle's first engine, `engine`.
        figures: image_auroc, pixel_auroc and aupro; empty without labelled images.
    """

    name: str
    product: str
    seed: int
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


class FleetRecord(Header):
    """A result of kind "fleet"."""

    kind: Literal["fleet"]
    fleet: Annotated[list[FleetModel], NOT_EMPTY]
