"""Times as they are kept: `stpm-bench latency` and `peers`."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired, TypedDict

from stpm.benchmarks.records.header import NOT_EMPTY, Header

Rounds = Annotated[list[Annotated[list[float], NOT_EMPTY]], NOT_EMPTY]
"""Times in ms by round."""


class Percentiles(TypedDict):
    """Percentiles of times in ms."""

    p50: float
    p90: float
    p99: float
    max: float


class Steadiness(TypedDict):
    """See `stpm.benchmarks.measure.timing.Steadiness`."""

    drift: float
    spread: float
    two_modes: float
    flags: list[str]


class Ratio(TypedDict):
    """A ratio of times with its 95% interval."""

    median: float
    low: float
    high: float


class Rate(TypedDict):
    """What hardware can do at best, and who says so."""

    fp32_gflop_per_second: float
    fp16_tensor_gflop_per_second: NotRequired[float]
    memory_gb_per_second: float
    source: str


class Footprint(TypedDict):
    """A fresh process; see `stpm.benchmarks.measure.footprint.footprint`."""

    bundle: str
    engine: str
    threads: int
    import_ms: float
    open_ms: float
    build_ms: float
    first_image_ms: float
    peak_memory_mib: float | None


class Case(TypedDict):
    """A bundle on an engine in a scenario; sizes are (height, width)."""

    name: str
    bundle: str
    engine: str
    scenario: str
    image_size: list[int]
    map_size: NotRequired[list[int]]
    batch: int
    streams: int
    threads: int
    images_per_query: int
    latency_ms: Percentiles
    ms_per_image: float
    images_per_second: float
    stages_ms: dict[str, Percentiles]
    steadiness: Steadiness
    rounds_ms: Rounds


class LatencyRecord(Header):
    """A result of kind "latency"."""

    kind: Literal["latency"]
    image_source: str
    rates: dict[str, Rate]
    footprints: list[Footprint]
    cases: Annotated[list[Case], NOT_EMPTY]


class Agreement(TypedDict):
    """See `stpm.benchmarks.measure.peers.Agreement`."""

    factor: float
    rank_correlation: float
    map_difference: float
    score_difference: float


class Peer(TypedDict):
    """A program for the same task; `ratio` is to the record's reference.

    Attributes:
        method, config, training: of one of our bundles; None of another program.
        correct: whether its maps are the reference's.
    """

    name: str
    method: NotRequired[str | None]
    config: NotRequired[dict[str, Any] | None]
    training: NotRequired[dict[str, Any] | None]
    precision: str
    agreement: Agreement
    correct: bool
    image_auroc: NotRequired[float | None]
    pixel_auroc: NotRequired[float | None]
    aupro: NotRequired[float | None]
    latency_ms: Percentiles
    images_per_second: float
    ratio: Ratio
    steadiness: Steadiness
    rounds_ms: Rounds


class LeftOut(TypedDict):
    """A program that was not measured, and why."""

    name: str
    reason: str


class PeersRecord(Header):
    """A result of kind "peers"; `paper` has the paper's ms by method."""

    kind: Literal["peers"]
    reference: str
    image_count: int
    image_size: list[int]
    rates: dict[str, Rate]
    peers: Annotated[list[Peer], NOT_EMPTY]
    left_out: list[LeftOut]
    paper: dict[str, float]
