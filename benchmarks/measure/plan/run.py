"""Measure the arrangements of a station on this machine, and choose."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np

from stpm.benchmarks.measure.latency import Case, Image8, LatencyPlan, camera_frames
from stpm.benchmarks.measure.live.figures import shown_percentiles, stages_ms
from stpm.benchmarks.measure.plan.choice import (
    Demand,
    advice,
    choose,
    left_over,
    station_command,
)
from stpm.benchmarks.measure.plan.trial import Trial, try_station
from stpm.benchmarks.measure.processors import busy_seconds
from stpm.benchmarks.measure.timing import steadiness
from stpm.benchmarks.records.header import header
from stpm.benchmarks.records.plan import Arrangement, PlanRecord
from stpm.benchmarks.records.result_file import checked
from stpm.benchmarks.records.speed import LeftOut
from stpm.runtime.detector import Detector
from stpm.runtime.errors import BackendError, ParityError
from stpm.runtime.output.console import note, progress

ROUNDS = 3
"""In which the arrangements take turns, every other one backwards."""
FULL_SPEED = 12
"""Frames of each camera at full speed."""
WARM_UP = 2
"""Frames of each camera before that."""
LONGER = 3
"""Longer cycles that are tried where none holds."""
IMAGES = 8
"""Different images that the cameras show."""


@dataclass
class Contender:
    """An arrangement while it is measured.

    Attributes:
        case: bundle, engine, threads and the size of the images.
        detector, images: opened, and at the cameras' size.
        frames_per_second, processor_ms: at full speed.
        paced: a trial a round, at the cycle time.
    """

    case: Case
    detector: Detector
    images: Sequence[Image8]
    frames_per_second: float = 0.0
    processor_ms: float = 0.0
    paced: list[Trial] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Of the arrangement."""
        return f"{self.case.bundle.name} {self.case.engine} threads {self.case.threads}"

    def go_full_speed(self, cameras: int) -> None:
        """Measure how many frames a second there can be."""
        try_station(self.detector, self.images, cameras, WARM_UP, 0)
        trial = try_station(self.detector, self.images, cameras, FULL_SPEED, 0)
        frames = cameras * FULL_SPEED
        self.frames_per_second = frames / trial.seconds
        self.processor_ms = 1e3 * trial.processor_s / frames

    def arrangement(self) -> Arrangement:
        """Return what was measured."""
        times = [[round(ms, 3) for ms in trial.latencies_ms] for trial in self.paced]
        together = [ms for part in times for ms in part]
        passed = sum(trial.seconds for trial in self.paced)
        used = sum(trial.processor_s for trial in self.paced)
        unsteady = steadiness(np.array(together)) if together else None
        return {
            "name": self.name,
            "bundle": self.case.bundle.name,
            "precision": self.detector.bundle.manifest.precision,
            "engine": self.case.engine,
            "threads": self.case.threads,
            "frames_per_second": self.frames_per_second,
            "processor_ms": self.processor_ms,
            "latency_ms": shown_percentiles(together),
            "stages_ms": stages_ms([e for trial in self.paced for e in trial.entries]),
            "cores": used / passed if passed else None,
            "steadiness": None if unsteady is None else asdict(unsteady),  # type: ignore[typeddict-item]
            "rounds_ms": times,
        }


def plan_result(
    bundles: Sequence[Path],
    files: Sequence[Path],
    demand: Demand,
    *,
    engines: Sequence[str] | None = None,
    threads: Sequence[int] | None = None,
    cycles: int = 60,
) -> PlanRecord:
    """Measure every arrangement, choose one, and return the content of a result file.

    Args:
        bundles: the folders.
        files: images that the cameras show; none takes the bundles' golden images.
        demand: what the line asks for.
        engines: None takes every one that is usable.
        threads: processor threads of one run; None takes one, all, and half of them.
        cycles: that each arrangement is measured for.

    Raises:
        BackendError: no arrangement can be opened.
        BundleError, DataError: see `LatencyPlan.cases`.
    """
    tried = threads or sorted({1, max(1, demand.cores // 2), demand.cores})
    plan = LatencyPlan(bundles, engines, ("single_stream",), [demand.image_size], threads=tried)
    contenders, left_out = _opened(plan.cases(), files)
    began, busy_before, own_before = time.monotonic(), busy_seconds(), time.process_time()
    arrangements = _measured(contenders, demand, cycles)
    chosen, nearest = choose(arrangements, demand)
    longer, smaller = (demand.cycle_ms, True), None
    if chosen is None:
        (contender,) = (one for one in contenders if one.name == nearest["name"])
        longer = _with_longer_cycles(contender, nearest, demand)
        smaller = _with_smaller_images(contender, demand, files)
    others = busy_seconds() - busy_before - (time.process_time() - own_before)
    other_cores = max(0.0, others / (time.monotonic() - began))
    content = header("plan", list(bundles))
    flags = content["environment"]["processor"]["flags"]
    left_ms, left_cores = left_over(nearest, demand)
    record: PlanRecord = checked(
        content
        | {
            "cameras": demand.cameras,
            "cycle_time_ms": demand.cycle_ms,
            "image_size": list(demand.image_size),
            "image_source": "files" if files else "golden",
            "cores": demand.cores,
            "other_cores": other_cores,
            "arrangements": arrangements,
            "chosen": chosen,
            "nearest": nearest["name"],
            "left_ms": left_ms,
            "left_cores": left_cores,
            "station": "" if chosen is None else station_command(nearest, demand),
            "advice": []
            if chosen is not None
            else advice(
                arrangements,
                demand,
                nearest,
                flags=flags,
                other_cores=other_cores,
                longer=longer,
                smaller=smaller,
            ),
            "left_out": left_out,
        }
    )
    return record


def _opened(cases: Sequence[Case], files: Sequence[Path]) -> tuple[list[Contender], list[LeftOut]]:
    contenders: list[Contender] = []
    left_out: list[LeftOut] = []
    for case in cases:
        try:
            detector = Detector(case.bundle, case.engine, threads=case.threads)
        except (BackendError, ParityError) as error:
            note(f"left out: {error}")
            left_out.append({"name": f"{case.bundle.name} {case.engine}", "reason": str(error)})
            continue
        images = camera_frames(detector.bundle, files[:IMAGES], case.image_size)
        contenders.append(Contender(case, detector, images[:IMAGES]))
    if not contenders:
        raise BackendError(f"no arrangement can be opened: {left_out[0]['reason']}")
    return contenders, left_out


def _measured(contenders: Sequence[Contender], demand: Demand, cycles: int) -> list[Arrangement]:
    with progress("full speed", len(contenders), "arrangements") as on_done:
        for contender in contenders:
            contender.go_full_speed(demand.cameras)
            on_done(1)
    paced = [one for one in contenders if demand.keeps_up(one.frames_per_second)]
    with progress(f"{len(paced)} at the cycle time", ROUNDS, "rounds") as on_round:
        _in_rounds(paced, demand, -(-cycles // ROUNDS), on_round)
    return [contender.arrangement() for contender in contenders]


def _in_rounds(
    contenders: Sequence[Contender], demand: Demand, cycles: int, on_round: Callable[[int], None]
) -> None:
    period_ns = round(1e6 * demand.cycle_ms)
    for number in range(ROUNDS):
        for contender in contenders if number % 2 == 0 else reversed(contenders):
            trial = try_station(
                contender.detector, contender.images, demand.cameras, cycles, period_ns
            )
            contender.paced.append(trial)
        on_round(1)


def _with_longer_cycles(
    contender: Contender, nearest: Arrangement, demand: Demand
) -> tuple[float, bool]:
    """Try cycles that may be held; return the last one in ms, and whether it was."""
    measured = nearest
    for _ in range(LONGER):
        demand = demand.longer(measured)
        again = replace(contender, paced=[])
        _in_rounds([again], demand, FULL_SPEED, lambda _: None)
        measured = again.arrangement()
        if demand.holds(measured):
            return demand.cycle_ms, True
    return demand.cycle_ms, False


def _with_smaller_images(
    contender: Contender, demand: Demand, files: Sequence[Path]
) -> tuple[int, int] | None:
    """Return half the size, if the bundle takes any and with it the demand is held."""
    contract = contender.detector.bundle.manifest.input
    height, width = (side // 2 for side in demand.image_size)
    if contract.resize != "host" or height < contract.size[0] or width < contract.size[1]:
        return None
    images = camera_frames(contender.detector.bundle, files[:IMAGES], (height, width))
    small = Contender(contender.case, contender.detector, images[:IMAGES])
    (measured,) = _measured([small], demand, ROUNDS * FULL_SPEED)
    return (height, width) if demand.holds(measured) else None
