"""A station under load as it is kept: `stpm-bench live`."""

from __future__ import annotations

from typing import Annotated, Literal, TypedDict

from stpm.benchmarks.records.header import NOT_EMPTY, Header
from stpm.benchmarks.records.speed import Percentiles


class LiveCamera(TypedDict):
    """What became of a camera's frames.

    Attributes:
        sent: frames that the camera counted.
        verdicts: lines of the record, by verdict.
        lost: frames that were sent and have no line.
        away_s: from its unplugging to the next frame in the record; None where it stayed,
            or never came back.
    """

    name: str
    sent: int
    verdicts: dict[str, int]
    lost: int
    away_s: float | None


class Failure(TypedDict):
    """What failed, when after the start, and for how long."""

    what: Literal["broker stopped", "camera unplugged", "disk filled"]
    at_s: float
    lasted_s: float


class LiveSink(TypedDict):
    """What the station counts of a sink."""

    kind: str
    sent: int
    lost: int


class Messages(TypedDict):
    """What an independent subscriber heard: of how many lines of the record, and how many twice."""

    lines: int
    heard: int
    twice: int


class Sample(TypedDict):
    """The station's process: resident memory, and its processor seconds so far."""

    at_s: float
    memory_mib: float
    processor_s: float


class LiveRecord(Header):
    """A result of kind "live"; sizes are (height, width).

    Attributes:
        image_source: "files" or "golden".
        chain: "" for a record whose lines are bound as they should be, else what is wrong.
        stages_ms: of every verdict, as the record says.
        told_ms: from when a frame was due at its camera to its message at the subscriber, the
            frames left out that the stopped broker held up; None where no other was heard.
        late: verdicts that took longer than `cycle_time_ms`, as the station counts.
        memory_growth: of the median resident memory, from the first to the last fifth of the
            samples after `warm_up_s`.
        cores: processor seconds a second of the station, after `warm_up_s`.
        other_cores: of everything else on the machine meanwhile.
    """

    kind: Literal["live"]
    engine: str
    image_size: list[int]
    image_source: str
    rate: float
    seconds: float
    warm_up_s: float
    cycle_time_ms: float
    cameras: Annotated[list[LiveCamera], NOT_EMPTY]
    failures: list[Failure]
    sinks: list[LiveSink]
    messages: Messages
    chain: str
    late: int
    stages_ms: dict[str, Percentiles]
    told_ms: Percentiles | None
    memory_growth: float
    cores: float
    other_cores: float
    samples: Annotated[list[Sample], NOT_EMPTY]
