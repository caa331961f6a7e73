"""The planner's arithmetic: which arrangement holds a cycle time, what is left, and what would."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace

from stpm.benchmarks.records.plan import Arrangement

FULL = 0.9
"""Share of the processors, or of the frames that can be scored, that may be planned with."""
BUSY = 0.2
"""Processors that other programs use before that is worth a word."""
INT8_FLAGS = ("avx512_vnni", "avx_vnni", "amx_int8")
"""Processor flags with which INT8 is faster than FP32."""


@dataclass(frozen=True)
class Demand:
    """What the line asks for.

    Attributes:
        cameras: that take a frame at the same time.
        cycle_ms: between two frames, and the time that a verdict may take.
        image_size: (height, width) of the frames.
        cores: processors that the station may use.
    """

    cameras: int
    cycle_ms: float
    image_size: tuple[int, int]
    cores: int

    @property
    def frames_per_second(self) -> float:
        """Of all cameras."""
        return 1e3 * self.cameras / self.cycle_ms

    def keeps_up(self, frames_per_second: float) -> bool:
        """Whether frames are scored as fast as they come."""
        return frames_per_second >= self.frames_per_second

    def holds(self, arrangement: Arrangement) -> bool:
        """Whether 99 of 100 verdicts are there within the cycle."""
        latency = arrangement["latency_ms"]
        return (
            latency is not None
            and latency["p99"] <= self.cycle_ms
            and self.keeps_up(arrangement["frames_per_second"])
        )

    def longer(self, arrangement: Arrangement) -> Demand:
        """Return the same with a cycle that an arrangement may hold, by what was measured of it."""
        throughput = 1e3 * self.cameras / arrangement["frames_per_second"] / FULL
        latency = arrangement["latency_ms"]
        needed = max(throughput, latency["p99"] if latency is not None else 0.0)
        return replace(self, cycle_ms=float(10 * math.ceil(needed / 10)))


def choose(arrangements: Sequence[Arrangement], demand: Demand) -> tuple[str | None, Arrangement]:
    """Return the name of the fastest arrangement that holds, if one does, and the nearest one.

    The fastest has the lowest p99. The nearest is the fastest; where none holds, it is the one with
    the lowest p99, or, where none keeps up, the one that scores the most frames.
    """
    holding = [one for one in arrangements if demand.holds(one)]
    measured = holding or [one for one in arrangements if one["latency_ms"] is not None]
    if measured:
        nearest = min(measured, key=_p99)
        return (nearest["name"] if holding else None), nearest
    return None, max(arrangements, key=lambda one: one["frames_per_second"])


def left_over(nearest: Arrangement, demand: Demand) -> tuple[float | None, float | None]:
    """Return ms of the cycle after p99, and processors that are not in use."""
    latency, cores = nearest["latency_ms"], nearest["cores"]
    if latency is None or cores is None:
        return None, None
    return demand.cycle_ms - latency["p99"], max(0.0, demand.cores - cores)


def station_command(arrangement: Arrangement, demand: Demand) -> str:
    """Return the command of a station that is set up like this; cameras are to be named."""
    words = ["stpm-live", arrangement["bundle"]]
    words += [f"camera{number}=ADDRESS" for number in range(1, demand.cameras + 1)]
    words += ["--engine", arrangement["engine"], "--threads", str(arrangement["threads"])]
    return shlex.join([*words, "--cycle-time", f"{demand.cycle_ms:g}ms"])


def advice(
    arrangements: Sequence[Arrangement],
    demand: Demand,
    nearest: Arrangement,
    *,
    flags: Sequence[str],
    other_cores: float,
    longer: tuple[float, bool],
    smaller: tuple[int, int] | None,
) -> list[str]:
    """Say what to try where nothing holds.

    Args:
        arrangements: all that were measured.
        demand: what was asked for.
        nearest: see `choose`.
        flags: the processor's.
        other_cores: processors that other programs used meanwhile.
        longer: the longest cycle in ms that was tried with the nearest, and whether it held that.
        smaller: (height, width) of images with which the nearest held what was asked for; None
            where it did not, or that was not tried.
    """
    cycle_ms, is_held = longer
    found = [f"a cycle of {cycle_ms:g} ms" if is_held else f"a cycle longer than {cycle_ms:g} ms"]
    if other_cores > BUSY:
        found.append(
            f"the machine alone: other programs used {other_cores:.1f} of {demand.cores} processors"
        )
    if smaller is not None:
        found.append(f"images of {smaller[0]}x{smaller[1]}")
    if not any(one["precision"] == "int8" for one in arrangements) and any(
        flag in flags for flag in INT8_FLAGS
    ):
        found.append("an INT8 bundle, by stpm-export --int8: this processor has arithmetic for it")
    needed = demand.frames_per_second * nearest["processor_ms"] / 1e3 / FULL
    if needed > demand.cores:
        found.append(f"{math.ceil(needed)} processors like these instead of {demand.cores}")
    return found


def _p99(arrangement: Arrangement) -> float:
    latency = arrangement["latency_ms"]
    return math.inf if latency is None else latency["p99"]
