"""How scoring an archive scales: measured with few workers, and a model of many."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from stpm.benchmarks.records.fleet import ScalingModel, ScoringRun
from stpm.benchmarks.records.header import header
from stpm.benchmarks.records.result_file import checked
from stpm.fleet.score import BATCH, Scorer, block_count, spread
from stpm.runtime.detector import Detector
from stpm.runtime.errors import BackendError, DataError
from stpm.runtime.images.preprocess import load_image
from stpm.runtime.output.console import note

IDLE_TASKS = 1000
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
        BackendError: a worker came too late to be timed.
    """
    least = 4 * BATCH * max(workers)
    if len(paths) < least:
        raise DataError(f"got {len(paths)} images, expected {least} or more; see --count.")
    before = os.getloadavg()[0]
    measured = measure(bundle, engine, paths, workers, rounds)
    return checked(
        header("fleet_scaling", [bundle])
        | measured
        | vars(stated)
        | {
            "load_average": (before, os.getloadavg()[0]),
            "model": [model(measured, stated, count) for count in MODELLED],
        }
    )


def stamped(table: pa.Table) -> pa.Table:
    """Add to a worker's rows when they were done, and by which process."""
    count = table.num_rows
    return table.append_column("done", pa.array([time.time()] * count)).append_column(
        "worker", pa.array([os.getpid()] * count)
    )


class Idle:
    """A worker that does nothing."""

    def __call__(self, table: pa.Table) -> pa.Table:
        """Give a table of paths back."""
        return stamped(table)


class Timed(Scorer):
    """The worker of `stpm-fleet score` with a clock."""

    def __call__(self, table: pa.Table) -> pa.Table:
        """Score a table of paths."""
        return stamped(super().__call__(table))


def timed(
    paths: Sequence[str], worker: type, arguments: tuple[Any, ...], workers: int
) -> list[tuple[float, int]]:
    """Have workers write Parquet files; return of each path when it was done, and by whom."""
    with TemporaryDirectory() as folder:
        spread(paths, worker, arguments, workers).write_parquet(folder)
        table = pq.read_table(folder, columns=["done", "worker"])
    done, by = (table[name].to_pylist() for name in ("done", "worker"))
    return list(zip(done, by, strict=True))


def steady(done: Sequence[tuple[float, int]], workers: int) -> tuple[int, float]:
    """Return images and seconds from when every worker had done its first batch to the last one.

    The start is so left out.

    Raises:
        BackendError: a worker came too late to be timed.
    """
    firsts: dict[int, float] = {}
    for moment, worker in sorted(done):
        firsts.setdefault(worker, moment)
    begun, ended = max(firsts.values()), max(done)[0]
    images = sum(moment > begun for moment, _ in done)
    if len(firsts) < workers or not images:
        raise BackendError(
            f"of {workers} workers {len(firsts)} had work, and {images} images were left when all "
            "had begun, expected more; raise --count."
        )
    return images, ended - begun


def processor_ms(detector: Detector, paths: Sequence[str]) -> tuple[float, float]:
    """Return the processor's milliseconds to decode an image, and to score it."""
    depth = detector.bundle.manifest.input.bit_depth
    decode = scoring = 0.0
    for path in paths:
        begun = time.process_time()
        image = load_image(Path(path), depth)
        decoded = time.process_time()
        detector(image)
        decode += decoded - begun
        scoring += time.process_time() - decoded
    return decode / len(paths) * 1e3, scoring / len(paths) * 1e3


def measure(
    bundle: Path, engine: str | None, paths: Sequence[str], workers: Sequence[int], rounds: int
) -> dict[str, Any]:
    """Score the same images in one process and in fleets, in turn; Ray is running.

    Args:
        bundle: its folder.
        engine: of all; None takes the fastest.
        paths: on the disk, several times `BATCH` for each worker.
        workers: sizes of fleets.
        rounds: of all contenders in turn.

    Returns:
        Fields of `stpm.benchmarks.records.fleet.FleetScalingRecord`.
    """
    detector = Detector(bundle, engine, threads=1)
    arguments = (str(bundle.absolute()), detector.engine_name)
    processor_ms(detector, paths[:BATCH])
    runs: list[ScoringRun] = []
    stages = []
    for number in range(rounds):
        started = time.perf_counter()
        stages.append(processor_ms(detector, paths))
        runs.append(_run("one process", number, 1, len(paths), time.perf_counter() - started))
        for count in workers:
            done = timed(paths, Timed, arguments, count)
            runs.append(_run("fleet", number, count, *steady(done, count)))
        note(f"round {number + 1} of {rounds}")
    idle = timed([str(i) for i in range(IDLE_TASKS * BATCH)], Idle, (), max(workers))
    images, seconds = steady(idle, max(workers))
    decode, scoring = zip(*stages, strict=True)
    return {
        "engine": detector.engine_name,
        "image_bytes": sum(Path(path).stat().st_size for path in paths) / len(paths),
        "decode_ms": median(decode),
        "score_ms": median(scoring),
        "runs": runs,
        "images_per_second": rates(runs),
        "tasks_per_second": images / BATCH / seconds,
    }


def _run(
    contender: Literal["one process", "fleet"],
    number: int,
    workers: int,
    images: int,
    seconds: float,
) -> ScoringRun:
    return {
        "contender": contender,
        "round": number,
        "workers": workers,
        "images": images,
        "seconds": seconds,
    }


def rates(runs: Sequence[ScoringRun]) -> dict[str, float]:
    """Return each contender's images a second, median over rounds."""
    found: dict[str, list[float]] = {}
    for run in runs:
        name = f"fleet of {run['workers']}" if run["contender"] == "fleet" else run["contender"]
        found.setdefault(name, []).append(run["images"] / run["seconds"])
    return {name: median(own) for name, own in found.items()}
