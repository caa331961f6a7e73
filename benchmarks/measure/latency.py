"""Milliseconds an image, by stage and scenario, on the machine at hand."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from stpm.benchmarks.measure.footprint import footprint
from stpm.benchmarks.measure.rates import rates
from stpm.benchmarks.measure.timing import steadiness
from stpm.benchmarks.records.header import header
from stpm.benchmarks.records.result_file import checked
from stpm.benchmarks.records.speed import LatencyRecord
from stpm.runtime.backends import installed_engines
from stpm.runtime.bundle.archive import Bundle, InputContract
from stpm.runtime.detector import Detector
from stpm.runtime.errors import DataError
from stpm.runtime.images.preprocess import load_image, picture_of
from stpm.runtime.output.console import note, progress

SCENARIOS = ("single_stream", "multi_stream", "offline")
"""As in MLPerf Inference: one query after another; queries of several images at once; everything
at once."""
STAGES = ("decode", "resize", "engine", "decision")
"""Stages of one query. On a processor nothing is uploaded or downloaded: the engine reads and
writes memory of the process."""
WARM_UP = 5
"""Images of a case before the first round, at least."""
OFFLINE_IMAGES = 128
"""In a query of the offline scenario; of 32, what one core scores alone at the end is 3 %."""
DISTINCT_IMAGES = 32
"""Most images of a query that differ, so that large ones fit the memory."""

Times = dict[str, list[float]]
Image8 = NDArray[np.uint8]


@dataclass(frozen=True)
class Case:
    """One thing to time.

    Attributes:
        bundle: the folder.
        engine: a key of `stpm.runtime.backends.ENGINES`.
        scenario: one of `SCENARIOS`.
        image_size: (height, width) of the images as the camera gives them.
        batch: images in one run of the engine.
        streams: threads that score at once.
        threads: processor threads of one run; 0 leaves the choice to the engine.
    """

    bundle: Path
    engine: str
    scenario: str
    image_size: tuple[int, int]
    batch: int = 1
    streams: int = 1
    threads: int = 0

    @property
    def name(self) -> str:
        """What is told apart: the same in two result files for the same case."""
        height, width = self.image_size
        return (
            f"{self.bundle.name} {self.engine} {self.scenario} {height}x{width} "
            f"batch {self.batch} streams {self.streams} threads {self.threads}"
        )

    @property
    def images_per_query(self) -> int:
        """How many images a query holds."""
        if self.scenario == "single_stream":
            return self.batch
        if self.scenario == "multi_stream":
            return self.batch * self.streams
        return max(OFFLINE_IMAGES // self.batch, self.streams) * self.batch


@dataclass(frozen=True)
class LatencyPlan:
    """What to time; the cases are the combinations that make sense.

    Attributes:
        bundles: the folders.
        engines: None takes every one that is verified and installed.
        scenarios: of `SCENARIOS`.
        image_sizes: (height, width) of camera images; None takes the graph's input size.
        batches: images in one run; those that a bundle cannot take are left out.
        streams: threads at once, for multi-stream and offline.
        threads: processor threads of one run.
    """

    bundles: Sequence[Path]
    engines: Sequence[str] | None = None
    scenarios: Sequence[str] = SCENARIOS
    image_sizes: Sequence[tuple[int, int]] | None = None
    batches: Sequence[int] = (1,)
    streams: Sequence[int] = (2,)
    threads: Sequence[int] = (0,)

    def cases(self) -> list[Case]:
        """List the cases.

        Raises:
            BundleError: a bundle cannot be opened.
            DataError: no case is left.
        """
        found = [case for path in self.bundles for case in self._of_bundle(path)]
        if not found:
            raise DataError(
                "nothing to time: no bundle accepts these batches and image sizes on an "
                "installed engine; export with --batch MIN..MAX, or choose other values."
            )
        return found

    def _of_bundle(self, path: Path) -> list[Case]:
        manifest = Bundle(path).manifest
        usable = [name for name in installed_engines() if name in manifest.engines]
        contract = manifest.input
        sizes = [s for s in self.image_sizes or [contract.size] if _takes(contract, s)]
        batches = [b for b in self.batches if contract.batch[0] <= b <= contract.batch[1]]
        return [
            Case(path, engine, scenario, size, batch, streams, threads)
            for engine in self.engines or usable
            for size in sizes
            for threads in self.threads
            for batch in batches
            for scenario in self.scenarios
            for streams in (self.streams if scenario != "single_stream" else (1,))
        ]


def _takes(contract: InputContract, size: tuple[int, int]) -> bool:
    return contract.resize == "host" or size == contract.size


class Workload:
    """A case with its detector and images, ready to be timed.

    The images are real: files if there are any, else the bundle's golden images brought to the
    camera's size.
    """

    def __init__(self, case: Case, detector: Detector, files: Sequence[Path]) -> None:
        self.case = case
        count = case.images_per_query
        most = min(count, DISTINCT_IMAGES)
        frames = camera_frames(detector.bundle, files[:most], case.image_size)
        encoded = [_png(frame) for frame in frames] if case.streams == 1 else []
        self._frames: list[Image8] = list(islice(cycle(frames), count))
        self._encoded = list(islice(cycle(encoded), count))
        self._detector = detector
        self._pool = ThreadPoolExecutor(case.streams) if case.streams > 1 else None

    @property
    def map_size(self) -> tuple[int, int]:
        """(height, width) of the anomaly map, and of what the networks see."""
        return self._detector.bundle.manifest.map_size

    def query(self) -> dict[str, float]:
        """Run one query; return its stages and "total" in ms, from frames in memory to decisions.

        Decoding stands apart, because a camera hands over frames. With several streams only the
        total is taken.
        """
        batch = self.case.batch
        parts = [self._frames[i : i + batch] for i in range(0, len(self._frames), batch)]
        if self._pool is not None:
            start = time.perf_counter_ns()
            list(self._pool.map(self._detector.batch, parts))
            return {"total": (time.perf_counter_ns() - start) / 1e6}
        channels = self._detector.bundle.manifest.input.channels
        decoding = _clock(
            lambda: [load_image(io.BytesIO(data), channels=channels) for data in self._encoded]
        )
        stages = [self._stages(part) for part in parts]
        summed = {name: sum(stage[name] for stage in stages) for name in stages[0]}
        return {"decode": decoding} | summed | {"total": sum(summed.values())}

    def _stages(self, frames: Sequence[Image8]) -> dict[str, float]:
        detector = self._detector
        marks = [time.perf_counter_ns()]
        inputs, views = detector.align(detector.prepare(frames))
        marks.append(time.perf_counter_ns())
        outputs = detector.infer(inputs)
        marks.append(time.perf_counter_ns())
        sizes = [(frame.shape[0], frame.shape[1]) for frame in frames]
        for result in detector.decide(sizes, outputs, views):
            _ = result.is_anomalous, result.regions
        marks.append(time.perf_counter_ns())
        return dict(zip(STAGES[1:], (np.diff(marks) / 1e6).tolist(), strict=True))


def camera_frames(
    bundle: Bundle, files: Sequence[Path], image_size: tuple[int, int]
) -> list[Image8]:
    """Bring images to a camera's size (height, width): files, or without any the golden images."""
    contract = bundle.manifest.input
    depth, channels = contract.bit_depth, contract.channels
    sources = [load_image(path, depth, channels) for path in files]
    height, width = image_size
    pictures = [
        picture_of(source).resize((width, height), Image.Resampling.BICUBIC)
        for source in sources or list(bundle.golden().images)
    ]
    return [load_image(picture, channels=channels) for picture in pictures]


def _png(frame: Image8) -> bytes:
    buffer = io.BytesIO()
    picture_of(frame).save(buffer, "PNG")
    return buffer.getvalue()


def _clock(work: Callable[[], object]) -> float:
    start = time.perf_counter_ns()
    work()
    return (time.perf_counter_ns() - start) / 1e6


def time_cases(
    workloads: Sequence[Workload], images: int, rounds: int, on_round: Callable[[int], None]
) -> list[list[Times]]:
    """Time workloads in interleaved rounds, so that a drifting machine drifts for all alike.

    Args:
        workloads: what to time.
        images: to score in each case, in as many queries as that makes; one a round at least.
        rounds: into which they are divided; every other one goes through the workloads backwards.
        on_round: called with 1 after each round.

    Returns:
        For each workload and round, the stages' times in ms.
    """
    for workload in workloads:
        for _ in range(-(-WARM_UP // workload.case.images_per_query)):
            workload.query()
    found: list[list[Times]] = [[] for _ in workloads]
    for number in range(rounds):
        order = range(len(workloads))
        for i in order if number % 2 == 0 else reversed(order):
            per_round = -(-images // (rounds * workloads[i].case.images_per_query))
            samples = [workloads[i].query() for _ in range(per_round)]
            found[i].append({stage: [s[stage] for s in samples] for stage in samples[0]})
        on_round(1)
    return found


def summarise_case(workload: Workload, rounds: Sequence[Times]) -> dict[str, Any]:
    """Return a case's entry in a result file, raw times included."""
    case = workload.case
    stages = {name: np.concatenate([r[name] for r in rounds]) for name in rounds[0]}
    total = stages["total"]
    count = case.images_per_query
    return {
        "name": case.name,
        "bundle": case.bundle.name,
        "engine": case.engine,
        "scenario": case.scenario,
        "image_size": list(case.image_size),
        "map_size": list(workload.map_size),
        "batch": case.batch,
        "streams": case.streams,
        "threads": case.threads,
        "images_per_query": count,
        "latency_ms": percentiles(total),
        "ms_per_image": float(np.median(total)) / count,
        "images_per_second": count * len(total) / (float(total.sum()) / 1e3),
        "stages_ms": {n: percentiles(v) for n, v in stages.items() if n != "total"},
        "steadiness": asdict(steadiness(total)),
        "rounds_ms": [[round(t, 4) for t in r["total"]] for r in rounds],
    }


def percentiles(times_ms: NDArray[np.float64]) -> dict[str, float]:
    """Return what a latency is judged by, in ms."""
    p50, p90, p99 = np.percentile(times_ms, [50, 90, 99])
    return {"p50": float(p50), "p90": float(p90), "p99": float(p99), "max": float(times_ms.max())}


def open_workloads(cases: Sequence[Case], files: Sequence[Path]) -> list[Workload]:
    """Open each bundle once an engine and number of threads, and attach the images.

    Raises:
        BackendError: a case's engine cannot be opened.
    """
    detectors: dict[tuple[Path, str, int], Detector] = {}
    workloads = []
    for case in cases:
        key = (case.bundle, case.engine, case.threads)
        if key not in detectors:
            detectors[key] = Detector(case.bundle, case.engine, threads=case.threads)
        workloads.append(Workload(case, detectors[key], files))
    return workloads


def latency_result(
    plan: LatencyPlan, files: Sequence[Path], *, images: int = 200, rounds: int = 10
) -> LatencyRecord:
    """Time every case of a plan, and return the content of a result file.

    Args:
        plan: what to time.
        files: images to time with; none takes the bundles' golden images.
        images: to score in each case.
        rounds: into which they are divided.

    Raises:
        BundleError, BackendError, DataError: see `LatencyPlan.cases` and `Detector`.
    """
    cases = plan.cases()
    processes = sorted({(case.bundle, case.engine, case.threads) for case in cases})
    note(f"{len(processes)} fresh processes for start-up time and memory")
    footprints = [footprint(*process) for process in processes]
    workloads = open_workloads(cases, files)
    with progress(f"{len(cases)} cases, {rounds} rounds", rounds, "rounds") as on_round:
        times = time_cases(workloads, images, rounds, on_round)
    found = zip(workloads, times, strict=True)
    content = header("latency", list(plan.bundles)) | {
        "image_source": "files" if files else "golden",
        "rates": rates(),
        "footprints": footprints,
        "cases": [summarise_case(workload, rounds_ms) for workload, rounds_ms in found],
    }
    record: LatencyRecord = checked(content)
    return record
