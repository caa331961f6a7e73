"""What serving costs as it is kept: `python -m stpm.benchmarks.measure.serving`."""

from __future__ import annotations

from typing import Annotated, Literal, TypedDict

from stpm.benchmarks.records.header import NOT_EMPTY, Header
from stpm.benchmarks.records.speed import Percentiles


class Load(TypedDict):
    """A number of clients that each send their next image when the last is answered.

    Attributes:
        contender: "detector", or the protocol and model of a server.
        refused: requests that the server answered with a refusal; none of the times is theirs.
        batch: images a run as the server formed them; None without a server.
    """

    contender: str
    clients: int
    seconds: float
    requests: int
    refused: int
    requests_per_second: float
    batch: float | None
    latency_ms: Percentiles
    times_ms: list[float]


class ServingRecord(Header):
    """A result of kind "serving"; sizes are (height, width)."""

    kind: Literal["serving"]
    engine: str
    image_size: list[int]
    outputs: list[str]
    loads: Annotated[list[Load], NOT_EMPTY]
