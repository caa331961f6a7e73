"""Accuracy of checkpoints and bundles on labelled test images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stpm.runtime.backends import Outputs, installed_engines
from stpm.runtime.bundle import Bundle
from stpm.runtime.detector import Detector
from stpm.runtime.overlay import side_by_side
from stpm.train.checkpoint import load_checkpoint
from stpm.train.datasets import Sample, read_image, read_mask
from stpm.train.evaluate import Evaluation, Scorer, evaluate, torch_scorer


@dataclass(frozen=True)
class Candidate:
    """Something to evaluate: a checkpoint in torch, or a bundle on one engine.

    `threshold` is None for a checkpoint, which has none.
    """

    name: str
    engine: str
    precision: str
    scorer: Scorer
    threshold: float | None = None


@dataclass(frozen=True)
class Decisions:
    """How a bundle's threshold does on the test set: shares in [0, 1]."""

    false_alarm_rate: float
    detection_rate: float


@dataclass(frozen=True)
class Accuracy:
    """One candidate's outcome; `decisions` is None without a threshold."""

    candidate: Candidate
    evaluation: Evaluation
    decisions: Decisions | None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "name": self.candidate.name,
            "engine": self.candidate.engine,
            "precision": self.candidate.precision,
            "image_count": len(self.evaluation.samples),
            "overall": asdict(self.evaluation.overall),
            "by_kind": {k: asdict(m) for k, m in self.evaluation.by_kind.items()},
            "decisions": asdict(self.decisions) if self.decisions else None,
        }


def candidates(model: Path, engine: str | None, teacher_weights: Path | None) -> list[Candidate]:
    """List what to evaluate of a model: a checkpoint once, a bundle on each engine it can run.

    Args:
        model: a checkpoint or a bundle's folder.
        engine: of a bundle; None takes every one that is verified and installed.
        teacher_weights: for the authors' checkpoints.
    """
    if not model.is_dir():
        checkpoint = load_checkpoint(model, teacher_weights)
        return [Candidate(model.name, "torch", "fp32", torch_scorer(checkpoint.model()))]
    bundle = Bundle(model)
    usable = [name for name in installed_engines() if name in bundle.manifest.engines]
    # With none, the detector says which one to install.
    chosen: list[str | None] = [engine] if engine or not usable else [*usable]
    detectors = [Detector(bundle, name) for name in chosen]
    return [_candidate(model.name, detector) for detector in detectors]


def _candidate(name: str, detector: Detector) -> Candidate:
    return Candidate(
        name,
        detector.engine_name,
        detector.bundle.manifest.precision,
        detector_scorer(detector),
        detector.calibration.image_threshold,
    )


def detector_scorer(detector: Detector) -> Scorer:
    """Score with a detector, as an inspection program would."""

    def score(images: Sequence[NDArray[np.uint8]]) -> Outputs:
        results = detector.batch(images)
        maps = np.stack([result.anomaly_map for result in results])
        return maps, np.array([result.score for result in results], dtype=np.float32)

    return score


def measure(
    candidate: Candidate,
    samples: Sequence[Sample],
    on_images: Callable[[int], None] = lambda _: None,
) -> Accuracy:
    """Evaluate one candidate on the test images."""
    evaluation = evaluate(candidate.scorer, samples, on_images)
    decisions = None
    if candidate.threshold is not None:
        anomalous = np.array([sample.is_anomalous for sample in samples])
        called = evaluation.pred_scores > candidate.threshold
        decisions = Decisions(float(called[~anomalous].mean()), float(called[anomalous].mean()))
    return Accuracy(candidate, evaluation, decisions)


def save_gallery(detector: Detector, samples: Sequence[Sample], folder: Path) -> list[Path]:
    """Write input, heat map, overlay and ground truth side by side, a picture a test image."""
    paths = []
    for sample in samples:
        image = read_image(sample.path)
        mask = read_mask(sample, (image.shape[0], image.shape[1]))
        path = folder / sample.kind / f"{sample.name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        side_by_side(image, detector(image), mask if sample.is_anomalous else None).save(path)
        paths.append(path)
    return paths
