"""What scoring large images tile by tile costs: time and memory, in fresh processes."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from stpm.benchmarks.measure.footprint import fresh_process, peak_memory_mib
from stpm.benchmarks.measure.latency import percentiles
from stpm.benchmarks.records.header import header
from stpm.benchmarks.records.result_file import checked
from stpm.benchmarks.records.tiles import TilesRecord
from stpm.runtime.backends import installed_engines
from stpm.runtime.bundle.archive import Bundle, Manifest
from stpm.runtime.bundle.tiling import Tiling
from stpm.runtime.detector import Detector
from stpm.runtime.errors import DataError
from stpm.runtime.images.preprocess import load_image, picture_of
from stpm.runtime.output.console import progress

PIXELS_PER_MEGAPIXEL = 10**6


def tiles_result(
    bundles: Sequence[Path], *, engine: str | None, threads: int, images: int, rounds: int
) -> TilesRecord:
    """Time bundles with tiles, each in a fresh process a round, round by round.

    Args:
        bundles: of `stpm-export --tile`.
        engine: of all; None takes the fastest that is installed and that they name.
        threads: see `Detector`.
        images: that a process scores after it has opened the bundle, which scores golden ones.
        rounds: every other one goes through the bundles backwards.

    Raises:
        BackendError: a process fails, or no engine fits.
        DataError: a bundle takes images whole.
    """
    manifests = [Bundle(path).manifest for path in bundles]
    for path, manifest in zip(bundles, manifests, strict=True):
        _tiling_of(path, manifest)
    chosen = engine or _common_engine(manifests)
    found: list[list[dict[str, Any]]] = [[] for _ in bundles]
    with progress(f"{len(bundles)} bundles, {rounds} rounds", rounds, "rounds") as on_round:
        for number in range(rounds):
            order = range(len(bundles))
            for i in order if number % 2 == 0 else reversed(order):
                arguments = [str(bundles[i]), chosen, str(threads), str(images)]
                found[i].append(fresh_process(__name__, arguments))
            on_round(1)
    content = header("tiles", list(bundles)) | {
        "engine": chosen,
        "threads": threads,
        "cases": [
            _case(path, manifest, measured)
            for path, manifest, measured in zip(bundles, manifests, found, strict=True)
        ],
    }
    record: TilesRecord = checked(content)
    return record


def tile_count(tiling: Tiling, image_size: tuple[int, int]) -> int:
    """Return how many tiles an image is cut into."""
    rows, columns = (len(list(tiling.cuts(side, axis))) for axis, side in enumerate(image_size))
    return rows * columns


def main(start: float) -> None:  # noqa: ARG001, how fresh processes begin
    """Score images in the fresh process, and print JSON."""
    bundle, engine, threads, images = sys.argv[1:]
    detector = Detector(bundle, engine, threads=int(threads))
    contract = detector.bundle.manifest.input
    height, width = contract.size
    picture = picture_of(detector.bundle.golden().images[0])
    frame = load_image(
        picture.resize((width, height), Image.Resampling.BICUBIC), channels=contract.channels
    )
    times, cpu_times = [], []
    for _ in range(int(images)):
        began, cpu_began = time.perf_counter(), time.process_time()
        result = detector(frame)
        _ = result.is_anomalous
        times.append(round(1e3 * (time.perf_counter() - began), 2))
        cpu_times.append(round(1e3 * (time.process_time() - cpu_began), 2))
    print(json.dumps({"ms": times, "cpu_ms": cpu_times, "peak_memory_mib": peak_memory_mib()}))


def _tiling_of(path: Path, manifest: Manifest) -> Tiling:
    if manifest.tiles is None:
        raise DataError(
            f"{path}: takes images whole, expected one with tiles; export it with --tile."
        )
    return manifest.tiles


def _common_engine(manifests: Sequence[Manifest]) -> str:
    for name in installed_engines():
        if all(name in manifest.engines for manifest in manifests):
            return name
    raise DataError("the bundles name no engine in common that is installed; name one: --engine.")


def _case(path: Path, manifest: Manifest, measured: Sequence[dict[str, Any]]) -> dict[str, Any]:
    tiling, size = _tiling_of(path, manifest), manifest.input.size
    tiles = tile_count(tiling, size)
    pixels, tiled = size[0] * size[1], tiles * tiling.size[0] * tiling.size[1]
    times = np.concatenate([process["ms"] for process in measured])
    median = float(np.median(times))
    peaks = [process["peak_memory_mib"] for process in measured]
    return {
        "bundle": path.name,
        "precision": manifest.precision,
        "image_size": list(size),
        "channels": manifest.input.channels,
        "tile_size": list(tiling.size),
        "tiles": tiles,
        "overlap": tiled / pixels,
        "latency_ms": percentiles(times),
        "ms_per_megapixel": median / pixels * PIXELS_PER_MEGAPIXEL,
        "ms_per_tiled_megapixel": median / tiled * PIXELS_PER_MEGAPIXEL,
        "cpu_ms": float(np.median(np.concatenate([process["cpu_ms"] for process in measured]))),
        "peak_memory_mib": None if None in peaks else max(peaks),
        "rounds_ms": [process["ms"] for process in measured],
        "rounds_cpu_ms": [process["cpu_ms"] for process in measured],
    }
