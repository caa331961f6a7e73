"""What aligning is worth: test images as they lie and shifted and turned, with it and without."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from stpm.benchmarks.records.header import header
from stpm.benchmarks.records.result_file import checked
from stpm.benchmarks.records.studies import AlignedCase, AlignmentRecord
from stpm.benchmarks.studies.movement import Movement, moved_by
from stpm.runtime.aligner import Aligner
from stpm.runtime.backends import Outputs
from stpm.runtime.detector import Detector
from stpm.runtime.errors import DataError
from stpm.runtime.output.console import progress
from stpm.runtime.output.map_score import UNALIGNED_SCORE, MapScore
from stpm.train.datasets import Sample, read_image, read_mask
from stpm.train.metrics import evaluate_maps

AS_THEY_LIE, MOVED = "as they lie", "shifted and turned"


@dataclass(frozen=True)
class _Scored:
    """Maps float32 (N,h,w) and scores float32 (N,) of one case."""

    name: str
    is_moved: bool
    aligns: bool
    outputs: Outputs


class _Ways:
    """A bundle's two ways to score an image: with its aligner, and without."""

    def __init__(self, detector: Detector, aligner: Aligner, map_score: MapScore) -> None:
        self._detector = detector
        self.aligner = aligner
        self._map_score = map_score
        self.ms: dict[bool, list[float]] = {False: [], True: []}

    def __call__(self, image: NDArray[np.uint8], *, aligns: bool) -> Outputs:
        """Score an image; returns its map (h,w) in the camera's coordinates, and its score."""
        # Of this thread, in which the engine runs, too: others may share the machine.
        start = time.thread_time()
        inputs, views = self._detector.prepare([image]), None
        if aligns:
            inputs, views = self._detector.align(inputs)
        maps, _ = self._detector.infer(inputs)
        maps, scores = self._map_score(maps, [(image.shape[0], image.shape[1])], views)
        self.ms[aligns].append(1e3 * (time.thread_time() - start))
        return maps[0], scores.max()

    def apart(
        self, image: NDArray[np.uint8], moved: NDArray[np.uint8], matrix: NDArray[np.float64]
    ) -> float | None:
        """Return how far the corners of a moved image are from where its image's place says.

        In pixels of the image, the farthest; None where either is not found.
        """
        places = [
            self.aligner.place(self.aligner.picture(self._detector.prepare([one])[0]))
            for one in (image, moved)
        ]
        if places[0] is None or places[1] is None:
            return None
        height, width = self.aligner.alignment.working_size
        scale = image.shape[1] / width
        small = matrix.copy()
        small[:, 2] /= scale
        corners = np.array([[0, width, 0, width], [0, 0, height, height], [1, 1, 1, 1]])
        expected = small @ np.vstack([places[0].matrix @ corners, [1, 1, 1, 1]])
        distances = np.hypot(*(places[1].matrix @ corners - expected))
        return float(distances.max() * scale)


def alignment_result(
    bundle: Path,
    samples: Sequence[Sample],
    category: str,
    movement: Movement,
    engine: str | None = None,
) -> AlignmentRecord:
    """Measure a bundle that aligns parts on labelled images; see docs/site.md.

    A part that is not aligned counts as rejected, and is left out of the pixels' metrics. Moved
    images and masks are filled up with what is at their edge.

    Raises:
        DataError: the bundle aligns no parts, or an image cannot be used.
    """
    detector = Detector(bundle, engine, threads=1)
    if detector.aligner is None or detector.map_score is None:
        raise DataError(
            f"{bundle}: aligns no parts, expected a bundle that does; run stpm-calibrate --align."
        )
    ways = _Ways(detector, detector.aligner, detector.map_score)
    depth = detector.bundle.manifest.input.bit_depth
    images = [read_image(sample.path, depth) for sample in samples]
    sizes = [(image.shape[0], image.shape[1]) for image in images]
    matrices = movement.matrices(sizes)
    moved = [moved_by(*pair) for pair in zip(images, matrices, strict=True)]
    ways(images[0], aligns=True)  # warms up
    with progress("scoring", 2 * len(images)) as on_images:
        cases = _cases(ways, {False: images, True: moved}, on_images)
    apart = [ways.apart(*one) for one in zip(images, moved, matrices, strict=True)]
    anomalous = np.array([sample.is_anomalous for sample in samples])
    threshold = detector.calibration.image_threshold
    content: dict[str, Any] = header("alignment", [bundle]) | {
        "category": category,
        "engine": detector.engine_name,
        "good_count": int((~anomalous).sum()),
        "defect_count": int(anomalous.sum()),
        "rois": list(detector.bundle.manifest.scoring.rois),
        "limits": asdict(detector.aligner.alignment) | {"size": list(sizes[0])},
        "disturbance": asdict(movement),
        "cases": [
            _figures(case, anomalous, _masks(samples, sizes, matrices, case), threshold)
            for case in cases
        ],
        "apart_px": _quantiles([distance for distance in apart if distance is not None]),
        "ms": {
            "without": float(np.median(ways.ms[False])),
            "with": float(np.median(ways.ms[True])),
        },
    }
    record: AlignmentRecord = checked(content)
    return record


def _quantiles(distances: Sequence[float]) -> dict[str, float | None]:
    shares = {"median": 0.5, "p95": 0.95}
    return {
        name: float(np.quantile(distances, share)) if distances else None
        for name, share in shares.items()
    }


def _cases(
    ways: _Ways,
    images: dict[bool, list[NDArray[np.uint8]]],
    on_images: Callable[[int], None],
) -> list[_Scored]:
    """Score images as they lie and moved, each both ways in turn."""
    cases = []
    for is_moved, name in ((False, AS_THEY_LIE), (True, MOVED)):
        outputs: dict[bool, list[Outputs]] = {False: [], True: []}
        for image in images[is_moved]:
            for aligns in (False, True):
                outputs[aligns].append(ways(image, aligns=aligns))
            on_images(1)
        for aligns, found in outputs.items():
            maps, scores = zip(*found, strict=True)
            both = np.stack(maps), np.array(scores, np.float32)
            cases.append(_Scored(name, is_moved, aligns, both))
    return cases


def _masks(
    samples: Sequence[Sample],
    sizes: Sequence[tuple[int, int]],
    matrices: Sequence[NDArray[np.float64]],
    case: _Scored,
) -> list[NDArray[np.bool_]]:
    """Read the ground truth of a case's images, bool (H,W) each."""
    masks = [read_mask(*pair) for pair in zip(samples, sizes, strict=True)]
    if not case.is_moved:
        return masks
    pairs = zip(masks, matrices, strict=True)
    return [moved_by(mask.astype(np.uint8), matrix) > 0 for mask, matrix in pairs]


def _figures(
    case: _Scored,
    anomalous: NDArray[np.bool_],
    masks: Sequence[NDArray[np.bool_]],
    threshold: float,
) -> AlignedCase:
    maps, scores = case.outputs
    size = maps.shape[2], maps.shape[1]
    truth = np.stack(
        [np.asarray(Image.fromarray(m).resize(size, Image.Resampling.NEAREST)) for m in masks]
    )
    found = scores < UNALIGNED_SCORE
    rows = found & (truth.any(axis=(1, 2)) | ~anomalous)
    pixels = evaluate_maps(anomalous[rows], scores[rows], truth[rows], maps[rows])
    rejected = scores > threshold
    return {
        "images": case.name,
        "aligned": case.aligns,
        "image_auroc": evaluate_maps(anomalous, scores).image_auroc,
        "pixel_auroc": pixels.pixel_auroc,
        "aupro": pixels.aupro,
        "good_rejected": int(rejected[~anomalous].sum()),
        "defects_found": int(rejected[anomalous].sum()),
        "good_unaligned": int((~found[~anomalous]).sum()),
        "defects_unaligned": int((~found[anomalous]).sum()),
    }
