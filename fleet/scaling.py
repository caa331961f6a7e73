"""How scoring an archive scales: measured with few workers, and a model of many."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from stpm.benchmarks.records.fleet import ScalingModel, ScoringRun
from stpm.benchmarks.records.header import header
from stpm.benchmarks.records.result_file import checked
from stpm.fleet.score import BATCH, block_count, score, spread
from stpm.runtime.detector import Detector
from stpm.runtime.errors import BackendError, DataError
from stpm.runtime.images.preprocess import load_image
from stpm.runtime.output.console import note

FEW_TASKS, IDLE_TASKS = 16, 1000
MODELLED = (1, 2, 10, 100, 1000)
"""Workers."""


@dataclass(frozen=True)
class Stated:
    """What the model takes as it is said.

    Attributes:
        store_gbit: that the store gives in a second.
        store_requests: that it answers in a second.
        archive_images: to be scored.
    """

    store_gbit: float
    store_requests: float
    archive_images: int


def model(measured: Mapping[str, Any], stated: Stated, workers: int) -> ScalingModel:
    """Say what so many workers score in a second: as much as the narrowest place lets through.

    Workers are taken to have a processor each, and none waits for another.

    Args:
        measured: from `measure`.
        stated: of store and archive.
        workers: their number.
    """
    images_of_a_task = stated.archive_images / block_count(stated.archive_images, workers)
    limits = {
        "workers": workers / (measured["decode_ms"] + measured["score_ms"]) * 1e3,
        "store's bandwidth": stated.store_gbit * 1e9 / 8 / measured["image_bytes"],
        "store's requests": stated.store_requests,
        "scheduler": measured["tasks_per_second"] * images_of_a_task,
    }
    limit = min(limits, key=lambda name: limits[name])
    return {"workers": workers, "images_per_second": limits[limit], "limit": limit}


def scaling_result(
    ray: Any,
    bundle: Path,
    engine: str | None,
    paths: Sequence[str],
    workers: Sequence[int],
    rounds: int,
    stated: Stated,
) -> Any:
    """Measure and model; see `measure` for the arguments.

    Returns:
        A `stpm.benchmarks.records.fleet.FleetScalingRecord`.

    Raises:
        DataError: there are too few images.
        BackendError: the machine was too busy to tell many tasks from few.
    """
    least = 3 * BATCH * max(workers)
    if len(paths) < least:
        raise DataError(f"got {len(paths)} images, expected {least} or more; see --count.")
    before = os.getloadavg()[0]
    measured = measure(ray, bundle, engine, paths, workers, rounds)
    return checked(
        header("fleet_scaling", [bundle])
        | measured
        | vars(stated)
        | {
            "load_average": (before, os.getloadavg()[0]),
            "model": [model(measured, stated, count) for count in MODELLED],
        }
    )


class Idle:
    """A worker that does nothing."""

    def __call__(self, table: Any) -> Any:
        """Give the table back."""
        return table


def tasks_per_second(workers: int) -> float:
    """Return how many tasks Ray Data hands to workers that do nothing, without its start."""

    def seconds(tasks: int) -> float:
        paths = [str(number) for number in range(tasks * BATCH)]
        started = time.perf_counter()
        spread(paths, Idle, (), workers).materialize()
        return time.perf_counter() - started

    few, every = seconds(FEW_TASKS), seconds(IDLE_TASKS)
    if every <= few:
        raise BackendError(
            f"{IDLE_TASKS} tasks took {every:.1f} s and {FEW_TASKS} took {few:.1f} s: this machine "
            "is too busy to measure; try again."
        )
    return (IDLE_TASKS - FEW_TASKS) / (every - few)


def processor_ms(detector: Detector, paths: Sequence[str]) -> tuple[float, float]:
    """Return the processor's milliseconds to decode an image, and to score it."""
    depth = detector.bundle.manifest.input.bit_depth
    decode = score_ = 0.0
    for path in paths:
        begun = time.process_time()
        image = load_image(Path(path), depth)
        decoded = time.process_time()
        detector(image)
        decode += decoded - begun
        score_ += time.process_time() - decoded
    return decode / len(paths) * 1e3, score_ / len(paths) * 1e3


def measure(
    ray: Any,
    bundle: Path,
    engine: str | None,
    paths: Sequence[str],
    workers: Sequence[int],
    rounds: int,
) -> dict[str, Any]:
    """Score the same images in one process and in fleets, in turn.

    Args:
        ray: from `stpm.fleet.pool.ray_cluster`.
        bundle: its folder.
        engine: of all; None takes the fastest.
        paths: on the disk, several times `BATCH` for each worker.
        workers: sizes of fleets.
        rounds: of all contenders in turn.

    Returns:
        Fields of `stpm.benchmarks.records.fleet.FleetScalingRecord`.
    """
    address = str(bundle.absolute())
    detector = Detector(bundle, engine, threads=1)
    name = detector.engine_name
    processor_ms(detector, paths[:BATCH])
    runs: list[ScoringRun] = []
    stages = []
    for number in range(rounds):
        started = time.perf_counter()
        stages.append(processor_ms(detector, paths))
        runs.append(_run("one process", number, 1, len(paths), started))
        for count in workers:
            for part in (paths[: BATCH * count], paths):
                with TemporaryDirectory() as folder:
                    started = time.perf_counter()
                    score(ray, address, name, part, Path(folder) / "scores", count)
                    runs.append(_run("fleet", number, count, len(part), started))
        note(f"round {number + 1} of {rounds}")
    decode, scoring = zip(*stages, strict=True)
    return {
        "engine": name,
        "image_bytes": sum(Path(path).stat().st_size for path in paths) / len(paths),
        "decode_ms": median(decode),
        "score_ms": median(scoring),
        "runs": runs,
        "images_per_second": rates(runs),
        "tasks_per_second": tasks_per_second(max(workers)),
    }


def _run(contender: str, number: int, workers: int, images: int, started: float) -> ScoringRun:
    return {
        "contender": "fleet" if contender == "fleet" else "one process",
        "round": number,
        "workers": workers,
        "images": images,
        "seconds": time.perf_counter() - started,
    }


def rates(runs: Sequence[ScoringRun]) -> dict[str, float | None]:
    """Return images a second by contender; of a fleet from the difference of a few and of all.

    Its start, the same for few images and for many, is so left out; None where many took no
    longer than few, on a busy machine.
    """
    found: dict[str, float | None] = {}
    alone = [run["images"] / run["seconds"] for run in runs if run["contender"] == "one process"]
    found["one process"] = median(alone)
    fleets = [run for run in runs if run["contender"] == "fleet"]
    for workers in dict.fromkeys(run["workers"] for run in fleets):
        own = [run for run in fleets if run["workers"] == workers]
        sizes = sorted({run["images"] for run in own})
        few, every = (median(r["seconds"] for r in own if r["images"] == size) for size in sizes)
        found[f"fleet of {workers}"] = (
            (sizes[1] - sizes[0]) / (every - few) if every > few else None
        )
    return found
