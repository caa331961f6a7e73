"""What scoring large images tile by tile costs as it is kept: `stpm-bench tiles`."""

from __future__ import annotations

from typing import Annotated, Literal, TypedDict

from stpm.benchmarks.records.header import NOT_EMPTY, Header
from stpm.benchmarks.records.speed import Percentiles, Rounds


class TiledCase(TypedDict):
    """A bundle with tiles; sizes are (height, width).

    Attributes:
        tiles: of an image.
        overlap: pixels of all tiles over those of the image.
        latency_ms: of an image, from a frame in memory to the decision.
        ms_per_megapixel: median, of the image's pixels.
        ms_per_tiled_megapixel: median, of the tiles' pixels.
        cpu_ms: median of the time that the processor's cores worked for an image, added up.
        peak_memory_mib: of a process that opens the bundle and scores; None where the system does
            not tell.
        rounds_ms, rounds_cpu_ms: a fresh process each.
    """

    bundle: str
    precision: str
    image_size: list[int]
    channels: int
    tile_size: list[int]
    tiles: int
    overlap: float
    latency_ms: Percentiles
    ms_per_megapixel: float
    ms_per_tiled_megapixel: float
    cpu_ms: float
    peak_memory_mib: float | None
    rounds_ms: Rounds
    rounds_cpu_ms: Rounds


class TilesRecord(Header):
    """A result of kind "tiles"."""

    kind: Literal["tiles"]
    engine: str
    threads: int
    cases: Annotated[list[TiledCase], NOT_EMPTY]
