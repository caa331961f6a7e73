"""Scores archived images with Ray Data into Parquet: each once, resumed where it stopped."""

from __future__ import annotations

import importlib
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from stpm.runtime.detector import Detector
from stpm.runtime.errors import BackendError, DataError
from stpm.runtime.images.preprocess import load_image
from stpm.runtime.output.result import Result
from stpm.runtime.partial import leftovers, partial_path
from stpm.runtime.store import read

REGION = pa.struct(
    [
        *((side, pa.int32()) for side in ("top", "left", "bottom", "right")),
        *(("area", pa.float64()), ("peak", pa.float64())),
    ]
)
SCHEMA = pa.schema(
    [
        ("path", pa.string()),
        ("score", pa.float64()),
        ("threshold", pa.float64()),
        ("is_anomalous", pa.bool_()),
        ("verdict", pa.string()),
        ("regions", pa.list_(REGION)),
        ("error", pa.string()),
    ]
)
"""A row an image: of one that cannot be read, `path` and `error` alone."""
BATCH = 16
"""Images that a worker is given at a time."""
LEAST_BLOCKS = 1000
BLOCKS_OF_A_WORKER = 16
"""So that workers end at about the same time."""
RUN = "run"
"""Kind of the folder beside the others' that a run writes into; see `partial_path`."""
WORKER_CPUS = 0.5
"""What a worker asks of Ray: the rest is for reading the list and writing the files."""


class Scorer:
    """A worker with its own engine, on one thread."""

    def __init__(self, bundle: str, engine: str | None) -> None:
        """Open the bundle, which replays its golden images."""
        self._detector = Detector(bundle, engine, threads=1)

    def __call__(self, table: pa.Table) -> pa.Table:
        """Score a table of paths; see `SCHEMA`."""
        rows = [self._row(path) for path in table["path"].to_pylist()]
        return pa.Table.from_pylist(rows, SCHEMA)

    def _row(self, path: str) -> dict[str, Any]:
        try:
            contract = self._detector.bundle.manifest.input
            image = load_image(read(path), contract.bit_depth, contract.channels)
            result = self._detector(image)
        except DataError as error:
            return {"path": path, "error": str(error)}
        return {
            "path": path,
            "score": None if result.verdict == "unaligned" else result.score,
            "threshold": result.threshold,
            "is_anomalous": result.is_anomalous,
            "verdict": result.verdict,
            "regions": _regions(result),
        }


def done_before(out: Path) -> set[str]:
    """Return the paths that the files of earlier runs hold; what killed runs left is taken in.

    A file without its end is removed: its images are scored again.
    """
    for folder in leftovers(out, RUN):
        _take(folder, out)
    done: set[str] = set()
    for file in sorted(out.glob("*.parquet")):
        paths = _paths_in(file)
        if paths is None:
            file.unlink()
        else:
            done.update(paths)
    return done


def _take(folder: Path, out: Path) -> None:
    """Move the whole files of a run's folder to the others.

    Ray's workers outlive a killed run for a while: renamed first, the folder is not there any more
    for what they finish later, which would be scored twice.
    """
    taken = folder.with_name(f"{folder.name}.taken")
    folder.rename(taken)
    out.mkdir(exist_ok=True)
    for file in taken.glob("*.parquet"):
        if _paths_in(file) is not None:
            file.rename(out / file.name)
    shutil.rmtree(taken, ignore_errors=True)


def _paths_in(file: Path) -> list[str] | None:
    """Return the paths that a file holds, None of one without its end."""
    try:
        paths: list[str] = pq.read_table(file, columns=["path"])["path"].to_pylist()
    except pa.ArrowInvalid:
        return None
    return paths


def block_count(images: int, workers: int) -> int:
    """Return into how many tasks images are cut, each of which ends as a file.

    A killed run loses a task of each worker; a million images are no million tasks.
    """
    return max(1, min(-(-images // BATCH), max(LEAST_BLOCKS, BLOCKS_OF_A_WORKER * workers)))


def spread(paths: Sequence[str], worker: type, arguments: tuple[Any, ...], workers: int) -> Any:
    """Return what Ray Data gives when so many workers have tables of paths; it is lazy.

    Args:
        paths: of the images.
        worker: a class whose objects map a table with `path` to one of results.
        arguments: of the class.
        workers: objects of it that run at once.
    """
    data = importlib.import_module("ray.data")
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    data.DataContext.get_current().enable_progress_bars = False
    blocks = block_count(len(paths), workers)
    dataset = data.from_items([{"path": path} for path in paths], override_num_blocks=blocks)
    return dataset.map_batches(
        worker,
        fn_constructor_args=arguments,
        batch_size=BATCH,
        batch_format="pyarrow",
        compute=data.ActorPoolStrategy(size=workers),
        num_cpus=WORKER_CPUS,
    )


def score(
    ray: Any, bundle: str, engine: str | None, paths: Sequence[str], out: Path, workers: int
) -> None:
    """Score images into Parquet files of a folder.

    Args:
        ray: from `stpm.fleet.pool.ray_cluster`.
        bundle: on a disk that every worker sees, or in a store, from which each machine copies it.
        engine: None takes the fastest.
        paths: of the images.
        out: the folder, seen by every worker.
        workers: engines that run at once.

    Raises:
        BackendError: a worker's engine fails.
    """
    scored = spread(paths, Scorer, (bundle, engine), workers)
    run = partial_path(out, RUN)
    run.mkdir(parents=True)
    try:
        scored.write_parquet(str(run.absolute()))
    except ray.exceptions.RayError as error:
        reason = str(error.cause if isinstance(error, ray.exceptions.RayTaskError) else error)
        raise BackendError(
            f"{out}: scoring stopped ({' '.join(reason.split())}); finished results are "
            "kept, run the same command again."
        ) from error
    finally:
        _take(run, out)


def _regions(result: Result) -> list[dict[str, float]]:
    sides = ("top", "left", "bottom", "right")
    return [
        dict(zip(sides, region.box, strict=True)) | {"area": region.area, "peak": region.peak}
        for region in result.regions
    ]
