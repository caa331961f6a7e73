"""How scoring an archive scales: measured with few workers, and a model of many."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
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


@dataclass(frozen=True, order=True)
class Stamp:
    """An image that a worker has done.

    Attributes:
        done: moment in seconds.
        worker: its process.
        processor: seconds that the process had computed by then.
    """

    done: float
    worker: int
    processor: float


def stamped(table: pa.Table) -> pa.Table:
    """Add the fields of `Stamp` to a worker's rows."""
    stamp = Stamp(time.time(), os.getpid(), time.process_time())
    for name, value in vars(stamp).items():
        table = table.append_column(name, pa.array([value] * table.num_rows))
    return table


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
) -> list[Stamp]:
    """Have workers write Parquet files, and return a stamp a path."""
    with TemporaryDirectory() as folder:
        spread(paths, worker, arguments, workers).write_parquet(folder)
        rows = pq.read_table(folder, columns=list(Stamp.__dataclass_fields__)).to_pylist()
    return sorted(Stamp(**row) for row in rows)


def steady(stamps: Sequence[Stamp], workers: int) -> tuple[int, float, float]:
    """Leave the start of a fleet out of what it took.

    Args:
        stamps: sorted; images of a batch share one.
        workers: how many were to have work.

    Returns:
        Images and seconds from when every worker had done its first batch to the last one, and
        the processor's milliseconds an image in the workers after their first batch.

    Raises:
        BackendError: a worker came too late to be timed.
    """
    firsts: dict[int, Stamp] = {}
    lasts: dict[int, Stamp] = {}
    for stamp in stamps:
        firsts.setdefault(stamp.worker, stamp)
        lasts[stamp.worker] = stamp
    begun = max(first.done for first in firsts.values())
    images = sum(stamp.done > begun for stamp in stamps)
    if len(firsts) < workers or not images:
        raise BackendError(
            f"of {workers} workers {len(firsts)} had work, and {images} images were left when all "
            "had begun, expected more; raise --count."
        )
    computed = sum(lasts[worker].processor - firsts[worker].processor for worker in firsts)
    counted = sum(stamp.done > firsts[stamp.worker].done for stamp in stamps)
    return images, stamps[-1].done - begun, computed / counted * 1e3


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
        took = len(paths), time.perf_counter() - started, sum(stages[-1])
        runs.append(_run("one process", number, 1, *took))
        for count in workers:
            done = timed(paths, Timed, arguments, count)
            runs.append(_run("fleet", number, count, *steady(done, count)))
        note(f"round {number + 1} of {rounds}")
    idle = timed([str(i) for i in range(IDLE_TASKS * BATCH)], Idle, (), max(workers))
    images, seconds, _ = steady(idle, max(workers))
    decode, scoring = zip(*stages, strict=True)
    return {
        "engine": detector.engine_name,
        "image_bytes": sum(Path(path).stat().st_size for path in paths) / len(paths),
        "decode_ms": median(decode),
        "score_ms": median(scoring),
        "runs": runs,
        "images_per_second": medians(runs, lambda run: run["images"] / run["seconds"]),
        "processor_ms": medians(runs, lambda run: run["processor_ms"]),
        "tasks_per_second": images / BATCH / seconds,
    }


def _run(
    contender: Literal["one process", "fleet"],
    number: int,
    workers: int,
    images: int,
    seconds: float,
    processor_ms: float,
) -> ScoringRun:
    return {
        "contender": contender,
        "round": number,
        "workers": workers,
        "images": images,
        "seconds": seconds,
        "processor_ms": processor_ms,
    }


def medians(runs: Sequence[ScoringRun], value: Callable[[ScoringRun], float]) -> dict[str, float]:
    """Return a value of each contender's runs, median over rounds."""
    found: dict[str, list[float]] = {}
    for run in runs:
        name = f"fleet of {run['workers']}" if run["contender"] == "fleet" else run["contender"]
        found.setdefault(name, []).append(value(run))
    return {name: median(own) for name, own in found.items()}
