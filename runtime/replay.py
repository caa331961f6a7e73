"""Open a bundle's engine, and trust it once it has reproduced the golden images here."""

from __future__ import annotations

import importlib.util
import os
from typing import TYPE_CHECKING

import numpy as np

from stpm.runtime.backends import ENGINES, BuiltEngine, Engine, open_engine
from stpm.runtime.batches import run_in_batches
from stpm.runtime.bundle.archive import MODEL, Bundle, Golden
from stpm.runtime.bundle.parity import compare
from stpm.runtime.errors import BackendError, BundleError, ParityError
from stpm.runtime.output.map_score import MapScore
from stpm.runtime.tiled import TiledEngine

if TYPE_CHECKING:
    from stpm.runtime.aligner import Aligner

MOST_LEVELS = 2.0
"""Grey levels that aligned pictures of two versions of OpenCV differ by in the mean, at most."""
MOST_CORRELATION = 0.02
"""That their correlations with the reference differ by, at most."""


def map_score_of(bundle: Bundle, weights: tuple[float, ...]) -> MapScore | None:
    """Return what a bundle's maps are scored by, None for the graph's own scores."""
    scoring = bundle.manifest.scoring
    return None if scoring.is_graphs else scoring.map_score(bundle.scoring_map().labels, weights)


def aligner_of(bundle: Bundle) -> Aligner | None:
    """Return what aligns a bundle's images, None where they are scored as they are.

    Raises:
        BackendError: OpenCV is not installed.
        ParityError: it does not bring the golden parts to where they were.
    """
    alignment = bundle.manifest.scoring.align
    if alignment is None:
        return None
    check_opencv(f"{bundle.path}: aligns parts")
    from stpm.runtime.aligner import Aligner

    kept = bundle.reference()
    aligner = Aligner(alignment, kept.reference)
    for picture, aligned, correlation in zip(
        kept.golden_images, kept.golden_aligned, kept.golden_correlations, strict=True
    ):
        found = aligner.place(picture)
        if found is not None:
            apart = np.abs(found.to_reference(picture).astype(np.float32) - aligned).mean()
            if apart <= MOST_LEVELS and abs(found.correlation - correlation) <= MOST_CORRELATION:
                continue
        raise ParityError(
            f"{bundle.path}: OpenCV brings a golden part elsewhere than it did at calibration; "
            "calibrate again on this machine with --align."
        )
    return aligner


def check_opencv(what: str) -> None:
    """Raise BackendError where OpenCV is not installed, for what needs it."""
    if importlib.util.find_spec("cv2") is None:
        raise BackendError(
            f"{what}, which needs OpenCV, not installed here; run pip install 'stpm[align]'."
        )


def verified_engine(
    bundle: Bundle, name: str, first_process: int, *, threads: int, rebuild: bool
) -> Engine:
    """Open an engine in this process and replay the golden images."""
    if ENGINES[name].needs_gpu and os.getpid() != first_process:
        raise BackendError(
            f"{bundle.path}: was opened on the GPU before this process was forked, and CUDA does "
            "not survive a fork; open the Detector in each worker, or start workers by spawn or "
            "forkserver."
        )
    tiles = bundle.manifest.tiles
    engine = open_engine(
        name,
        bundle.read(MODEL),
        threads=threads,
        batch=bundle.manifest.input.batch if tiles is None else tiles.batch,
        built=_built(bundle, name),
        rebuild=rebuild,
    )
    if tiles is not None:
        engine = TiledEngine(engine, tiles)
    golden = bundle.golden()
    outputs = run_in_batches(engine, golden.images, bundle.manifest.input)
    parity = compare(golden.anomaly_maps, golden.pred_scores, *outputs)
    tolerance = bundle.manifest.tolerance
    if not parity.holds(tolerance):
        raise ParityError(
            f"{bundle.path}: {name} differs from the golden maps by "
            f"{parity.map_difference:.2g} of their maximum and from the scores by "
            f"{parity.score_difference:.2g}, expected at most {tolerance:.2g}; export again "
            "on this machine or choose another engine."
        )
    _check_scoring(bundle, name, golden)
    return engine


def _check_scoring(bundle: Bundle, engine: str, golden: Golden) -> None:
    """Hold the regions' scores of the golden maps against those that were kept of them."""
    if bundle.manifest.scoring.is_graphs:
        return
    expected = bundle.scoring_map().golden_scores
    maps = golden.anomaly_maps
    labels = bundle.scoring_map().labels
    roi_scores = bundle.manifest.scoring.golden_scores(labels, maps, bundle.manifest.golden_size)
    limit = bundle.manifest.tolerance * np.abs(maps).max(axis=(1, 2))[:, None]
    holds = roi_scores.shape == expected.shape and (np.abs(roi_scores - expected) <= limit).all()
    if not holds:
        raise ParityError(
            f"{bundle.path}: {engine} scores the regions of interest of the golden images "
            "differently than at calibration; calibrate again."
        )


def _built(bundle: Bundle, name: str) -> BuiltEngine | None:
    """Read the engine that the bundle brings; what does not match its hash is left unread."""
    record = bundle.manifest.engines[name]
    if record.file is None:
        return None
    try:
        content = bundle.read(record.file)
    except BundleError:
        content = None
    return BuiltEngine(content, record.built_with, record.layer_precisions)
