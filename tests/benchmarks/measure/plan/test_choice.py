"""The planner's choice, from timings made by hand."""

from __future__ import annotations

from typing import Any

import pytest

from stpm.benchmarks.measure.plan.choice import (
    Demand,
    advice,
    choose,
    left_over,
    station_command,
)
from stpm.benchmarks.records.plan import Arrangement

DEMAND = Demand(cameras=4, cycle_ms=250, image_size=(1024, 1280), cores=2)
"""16 frames a second."""


def arrangement(name: str, frames_per_second: float, p99: float | None, **more: Any) -> Arrangement:
    latency = None if p99 is None else {"p50": p99 / 2, "p90": p99, "p99": p99, "max": p99}
    found: dict[str, Any] = {
        "name": name,
        "bundle": "bottle.stpm",
        "precision": "fp32",
        "engine": "openvino",
        "threads": 1,
        "frames_per_second": frames_per_second,
        "processor_ms": 50.0,
        "latency_ms": latency,
        "stages_ms": {},
        "cores": None if p99 is None else 0.75,
        "steadiness": None,
        "rounds_ms": [],
    }
    return found | more  # type: ignore[return-value]


SLOW = arrangement("slow", 12.0, None)
LATE = arrangement("late", 17.0, 260.0)
WELL = arrangement("well", 30.0, 240.0)
QUICK = arrangement("quick", 20.0, 100.0, threads=2)


def test_the_lowest_p99_that_holds_is_chosen() -> None:
    assert choose([SLOW, LATE, WELL, QUICK], DEMAND) == ("quick", QUICK)
    assert choose([SLOW, LATE, WELL], DEMAND) == ("well", WELL)
    assert choose([arrangement("just", 16.0, 250.0)], DEMAND)[0] == "just"


def test_one_that_cannot_keep_up_does_not_hold_however_quick_a_few_frames_were() -> None:
    few = arrangement("few", 15.9, 40.0)
    assert choose([few, LATE], DEMAND) == (None, few)
    assert choose([few, WELL], DEMAND) == ("well", WELL)


def test_where_none_holds_the_nearest_is_named() -> None:
    later = arrangement("later", 30.0, 400.0)
    assert choose([SLOW, later, LATE], DEMAND) == (None, LATE)
    slower = arrangement("slower", 8.0, None)
    assert choose([slower, SLOW], DEMAND) == (None, SLOW)


def test_what_is_left() -> None:
    assert left_over(QUICK, DEMAND) == (150.0, 1.25)
    assert left_over(LATE, DEMAND) == (-10.0, 1.25)
    assert left_over(SLOW, DEMAND) == (None, None)


def test_the_command_sets_the_arrangement() -> None:
    demand = Demand(2, 1500, (64, 64), 2)
    assert station_command(QUICK, demand) == (
        "stpm-live bottle.stpm camera1=ADDRESS camera2=ADDRESS --engine openvino --threads 2 "
        "--cycle-time 1500ms"
    )


def advised(nearest: Arrangement, **more: Any) -> list[str]:
    given: dict[str, Any] = {"flags": (), "other_cores": 0.0}
    given |= {"longer": (300.0, True), "smaller": None}
    return advice([nearest], DEMAND, nearest, **(given | more))


def test_the_cycle_to_try_is_by_latency_or_by_throughput() -> None:
    # p99; 4 frames at 20 a second, of which nine tenths are planned with, take 222 ms
    assert DEMAND.longer(arrangement("late", 20.0, 260.0)).cycle_ms == 260
    assert DEMAND.longer(arrangement("late", 20.0, 260.1)).cycle_ms == 270
    # 4 frames at 12 a second: 370.4 ms
    assert DEMAND.longer(SLOW).cycle_ms == 380
    assert advised(LATE) == ["a cycle of 300 ms"]
    assert advised(LATE, longer=(900.0, False)) == ["a cycle longer than 900 ms"]


@pytest.mark.parametrize(
    ("processor_ms", "says"),
    [(112.0, []), (113.0, ["3 processors like these instead of 2"])],
)
def test_more_processors_are_advised_where_these_are_too_few(
    processor_ms: float, says: list[str]
) -> None:
    """16 frames a second at 112.5 ms are 1.8 processors, nine tenths of two."""
    nearest = arrangement("slow", 12.0, None, processor_ms=processor_ms)
    assert advised(nearest)[1:] == says


def test_what_else_would_hold() -> None:
    assert advised(LATE, other_cores=1.5)[1:] == [
        "the machine alone: other programs used 1.5 of 2 processors"
    ]
    assert advised(LATE, smaller=(512, 640))[1:] == ["images of 512x640"]
    (said,) = advised(LATE, flags=["avx2", "avx512_vnni"])[1:]
    assert said.startswith("an INT8 bundle")
    int8 = LATE | {"precision": "int8"}
    assert advised(int8, flags=["avx512_vnni"])[1:] == []  # type: ignore[arg-type]
