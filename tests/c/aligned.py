"""A bundle that aligns drawn parts, for the tests of libstpm, and what Python makes of them."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import parts
from noise import pixels
from numpy.typing import NDArray

from stpm.runtime.aligner import Aligner
from stpm.runtime.bundle.alignment import Alignment
from stpm.runtime.bundle.archive import (
    ALIGN,
    GOLDEN,
    MODEL,
    SCORING,
    Golden,
    InputContract,
    Manifest,
    Reference,
    ScoringMap,
    npz_bytes,
    write_bundle,
)
from stpm.runtime.bundle.scoring import Scoring
from stpm.runtime.images.preprocess import resize

ALIGNMENT = Alignment(parts.SIZE, 0.1, 15.0, 0.8)
MAP_SIZE = (48, 64)
WEIGHTS = (1.0, 0.8)
"""Of the regions of interest "left" and "right"."""


def fake_outputs(images: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """What the engine of the tests makes of images, for maps of half their size."""
    maps = np.ascontiguousarray(images[:, ::2, ::2, 0]).astype(np.float32) / np.float32(255)
    return maps, maps.max(axis=(1, 2))


def write_aligned(out: Path, wished: Manifest) -> None:
    """Write the bundle, one whose golden parts are elsewhere, and parts with their maps and scores.

    Args:
        out: folder.
        wished: a manifest to change.
    """
    blank = Aligner(ALIGNMENT, np.empty(0, np.uint8))
    aligner = Aligner(ALIGNMENT, blank.picture(parts.draw_part()))
    labels = np.ones(MAP_SIZE, np.uint8)
    labels[:, 32:] = 2
    labels[:6] = 0
    scoring = Scoring("max", 0, ("left", "right"), ALIGNMENT)
    images = pixels(96 * 128 * 3, 7).reshape(1, 96, 128, 3)
    golden = Golden(images, *fake_outputs(images))
    kept = ScoringMap(labels, scoring.golden_scores(labels, golden.anomaly_maps, parts.SIZE))
    reference = _reference(aligner)
    files = {MODEL: b"fake", GOLDEN: npz_bytes(golden), SCORING: npz_bytes(kept)}
    record = wished.engines["onnxruntime"]
    calibration = replace(
        record.calibration, image_threshold=0.9, warn_threshold=0.8, roi_weights=WEIGHTS
    )
    manifest = replace(
        wished,
        input=InputContract(parts.SIZE, (1, 4), "host"),
        map_size=MAP_SIZE,
        scoring=scoring,
        engines={"onnxruntime": replace(record, calibration=calibration)},
    )
    write_bundle(out / "aligned.stpm", manifest, files | {ALIGN: npz_bytes(reference)})
    moved = replace(reference, golden_aligned=np.roll(reference.golden_aligned, 3, axis=2))
    write_bundle(out / "aligned_drifted.stpm", manifest, files | {ALIGN: npz_bytes(moved)})
    score = scoring.map_score(labels, WEIGHTS)
    with (out / "aligned.bin").open("wb") as file, (out / "aligned.txt").open("w") as index:
        for part in _parts():
            inputs, views = aligner(resize(part, parts.SIZE)[None])
            maps, scores = score(fake_outputs(inputs)[0], [part.shape[:2]], views)
            for array in (part, maps, scores):
                file.write(array.tobytes())
            index.write(f"{part.shape[0]} {part.shape[1]} {int(views[0] is not None)}\n")


def _reference(aligner: Aligner) -> Reference:
    drawn = parts.draw_part((5, -3), 8, seed=1), parts.draw_part()
    seen = [aligner.picture(part) for part in drawn]
    found = [place for place in map(aligner.place, seen) if place is not None]
    return Reference(
        aligner.reference,
        np.stack(seen),
        np.stack([p.to_reference(picture) for p, picture in zip(found, seen, strict=True)]),
        np.array([place.correlation for place in found], np.float32),
    )


def _parts() -> list[NDArray[np.uint8]]:
    """Twelve images, of which the fifth is noise, and the tenth's part lies beyond the limits."""
    draw = random.Random(3)
    drawn = []
    for seed in range(12):
        place = (draw.uniform(-8, 8), draw.uniform(-8, 8)), draw.uniform(-10, 10)
        size = parts.SIZE if seed % 2 else (192, 256)
        drawn.append(parts.draw_part(*place, defect=seed % 3 == 0, seed=seed, size=size))
    drawn[4] = pixels(drawn[4].size, 4).reshape(drawn[4].shape) // 4
    drawn[9] = parts.draw_part((25, 0), 0)
    return drawn
