"""A plan as it is kept: `stpm-bench plan`."""

from __future__ import annotations

from typing import Annotated, Literal, TypedDict

from stpm.benchmarks.records.header import NOT_EMPTY, Header
from stpm.benchmarks.records.speed import LeftOut, Percentiles, Steadiness


class Arrangement(TypedDict):
    """A way to set up a station, and what was measured of it.

    Attributes:
        name: bundle, engine and threads.
        threads: processor threads of one run.
        frames_per_second: of all cameras, as fast as they are scored.
        processor_ms: processor time of a frame then.
        latency_ms: from a frame that is due to its verdict on the disk, at the cycle time; None
            where the frames come faster than they are scored.
        stages_ms: of the same, as the record says.
        cores: processor seconds a second at the cycle time; None as above.
        steadiness: of the latencies; None as above.
        rounds_ms: the latencies by round, in the order of the verdicts; empty as above.
    """

    name: str
    bundle: str
    precision: str
    engine: str
    threads: int
    frames_per_second: float
    processor_ms: float
    latency_ms: Percentiles | None
    stages_ms: dict[str, Percentiles]
    cores: float | None
    steadiness: Steadiness | None
    rounds_ms: list[list[float]]


class PlanRecord(Header):
    """A result of kind "plan"; sizes are (height, width).

    Attributes:
        cycle_time_ms: between two frames of a camera, all cameras at once, and the time that a
            verdict may take.
        image_source: "files" or "golden".
        cores: processors that the station may use.
        other_cores: processor seconds a second of everything else meanwhile.
        chosen: name of the fastest arrangement that holds the cycle time; None where none does.
        nearest: name of the one that comes nearest to it, or that holds it.
        left_ms: of the cycle after p99, negative where it is exceeded; None where the nearest was
            not measured at the cycle time.
        left_cores: processors that are not in use; None as above.
        station: the command of the chosen one; "" for none.
        advice: what to try, a sentence each; empty where one does.
        left_out: what could not be opened, and why.
    """

    kind: Literal["plan"]
    cameras: int
    cycle_time_ms: float
    image_size: list[int]
    image_source: str
    cores: int
    other_cores: float
    arrangements: Annotated[list[Arrangement], NOT_EMPTY]
    chosen: str | None
    nearest: str
    left_ms: float | None
    left_cores: float | None
    station: str
    advice: list[str]
    left_out: list[LeftOut]
