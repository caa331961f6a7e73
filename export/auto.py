"""--precision auto: every precision that this machine has arithmetic for, and the fastest kept."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import numpy as np
from numpy.typing import NDArray

from stpm.export.options import ExportOptions
from stpm.export.pipeline import export_bundle
from stpm.runtime import Detector
from stpm.runtime.backends.gpu import gpu_count
from stpm.runtime.bundle.archive import Bundle, check_readable, write_bundle
from stpm.runtime.bundle.manifest import Manifest
from stpm.runtime.capabilities import gpu_precisions, processor_precisions
from stpm.runtime.errors import BackendError, ExportError, ParityError
from stpm.train.checkpoint import Checkpoint
from stpm.train.datasets import Sample, read_image

CANDIDATES = ("fp32", "bf16", "fp16", "int8")
WARM_UP = 3
ROUNDS = 15
"""Images that each bundle scores, in turn with the others."""


@dataclass(frozen=True)
class Tried:
    """One precision as it was found here.

    Attributes:
        precision: a key of `CANDIDATES`.
        engine: the bundle's default here; "" of a refused one.
        latency_ms: median from an image to its result.
        refusal: why it is not offered; "" where it passed.
    """

    precision: str
    engine: str = ""
    latency_ms: float = float("inf")
    refusal: str = ""

    def line(self, *, is_kept: bool) -> str:
        """Return a row of the table."""
        if self.refusal:
            return f"  {self.precision:5} refused: {self.refusal}"
        kept = ", kept" if is_kept else ""
        return f"  {self.precision:5} {self.latency_ms:8.2f} ms per image on {self.engine}{kept}"


def precisions_here(*, has_labels: bool) -> list[str]:
    """Name what is worth trying: where the hardware computes in it, and INT8 with labels alone."""
    native = gpu_precisions() if gpu_count() else processor_precisions()
    known = ("fp32",) if native is None else native
    return [p for p in CANDIDATES if p in known and (p != "int8" or has_labels)]


def export_fastest(
    checkpoint: Checkpoint,
    out: Path,
    options: ExportOptions,
    *,
    verify: Sequence[Path],
    calibration: Sequence[Path],
    quantization: Sequence[Path] = (),
    samples: Sequence[Sample] = (),
    report: Callable[[str], None],
) -> Manifest:
    """Export in each precision, and write the bundle that is fastest here; see `export_bundle`.

    One that fails its gates is left out, and said so.

    Raises:
        ExportError: every precision failed.
    """
    tried: list[Tried] = []
    detectors: dict[str, Detector] = {}
    with tempfile.TemporaryDirectory() as folder:
        for precision in precisions_here(has_labels=bool(samples)):
            path = Path(folder) / precision / out.name
            try:
                export_bundle(
                    checkpoint,
                    path,
                    replace(options, precision=precision),
                    verify=verify,
                    calibration=calibration,
                    quantization=quantization,
                    samples=samples if precision == "int8" else (),
                    report=report,
                )
                detectors[precision] = Detector(path)
            except (BackendError, ExportError, ParityError) as error:
                tried.append(Tried(precision, refusal=str(error)))
        if not detectors:
            reasons = " ".join(f"{row.precision}: {row.refusal}" for row in tried)
            raise ExportError(
                f"no precision passed its checks; choose one with --precision. {reasons}"
            )
        image = read_image(verify[0], checkpoint.bit_depth)
        for precision, latency_ms in _latencies(detectors, image).items():
            tried.append(Tried(precision, detectors[precision].engine_name, latency_ms))
        best = min(tried, key=lambda row: row.latency_ms)
        for row in sorted(tried, key=lambda row: row.latency_ms):
            report(row.line(is_kept=row is best))
        bundle: Bundle = detectors[best.precision].bundle
        files = {name: bundle.read(name) for name in bundle.manifest.files}
        return write_bundle(out, bundle.manifest, files, check_readable)


def _latencies(detectors: dict[str, Detector], image: NDArray[np.uint8]) -> dict[str, float]:
    """Score an image with one after the other, round by round; the median of each in ms."""
    seconds: dict[str, list[float]] = {precision: [] for precision in detectors}
    for _ in range(WARM_UP + ROUNDS):
        for precision, detector in detectors.items():
            start = time.perf_counter()
            detector(image)
            seconds[precision].append(time.perf_counter() - start)
    return {precision: 1e3 * median(taken[WARM_UP:]) for precision, taken in seconds.items()}
