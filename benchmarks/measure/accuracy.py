"""Accuracy of checkpoints and bundles on labelled test images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from stpm.benchmarks.measure.intervals import (
    FPR_LIMIT,
    Interval,
    image_auroc_resamples,
    pixel_intervals,
    quantile_interval,
)
from stpm.benchmarks.records.accuracy import METRICS, AccuracyRecord
from stpm.benchmarks.records.header import header
from stpm.benchmarks.records.result_file import checked
from stpm.runtime.backends import Outputs, installed_engines
from stpm.runtime.bundle.archive import Bundle
from stpm.runtime.bundle.calibration import Calibration
from stpm.runtime.detector import Detector
from stpm.runtime.images.preprocess import FULL_DEPTH
from stpm.runtime.output.console import note, progress
from stpm.runtime.output.overlay import side_by_side
from stpm.train.checkpoint import load_checkpoint
from stpm.train.datasets import (
    GOOD,
    Sample,
    find_category,
    open_category,
    read_image,
    read_mask,
)
from stpm.train.evaluate import Evaluation, Scorer, checkpoint_scorer, evaluate
from stpm.train.metrics import Metrics, labelled_regions, pro_curve

CURVE_POINTS = 151
"""Points of the curve of per-region overlap between the false positive rates 0 and 0.30."""


@dataclass(frozen=True)
class Candidate:
    """Something to evaluate: a checkpoint in torch, or a bundle on one engine.

    `calibration` is None for a checkpoint, which has no threshold, and so is `parity`, the
    differences from FP32 torch at export and the one allowed; `seed` is that of the training, None
    where it is unknown.
    """

    name: str
    engine: str
    precision: str
    scorer: Scorer
    calibration: Calibration | None = None
    seed: int | None = None
    parity: dict[str, float] | None = None
    bit_depth: int = FULL_DEPTH


@dataclass(frozen=True)
class Decisions:
    """How a bundle's threshold does on the test set: shares in [0, 1], None of no images."""

    false_alarm_rate: float | None
    detection_rate: float | None


@dataclass(frozen=True)
class Accuracy:
    """One candidate's outcome.

    Attributes:
        candidate: what was evaluated.
        evaluation: metrics, scores and maps.
        intervals: (low, high) by metric, 95 % bootstrap over images.
        decisions: None without a threshold.
    """

    candidate: Candidate
    evaluation: Evaluation
    intervals: dict[str, Interval]
    decisions: Decisions | None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        candidate, evaluation = self.candidate, self.evaluation
        return {
            "name": candidate.name,
            "engine": candidate.engine,
            "precision": candidate.precision,
            "seed": candidate.seed,
            "parity": candidate.parity,
            "image_count": len(evaluation.samples),
            "overall": _figures(evaluation.overall),
            "intervals": self.intervals,
            "by_kind": {k: _figures(m) for k, m in evaluation.by_kind.items()},
            "calibration": candidate.calibration.to_dict() if candidate.calibration else None,
            "decisions": asdict(self.decisions) if self.decisions else None,
            "curves": _curves(evaluation),
            "images": _images(evaluation),
        }


def _figures(metrics: Metrics) -> dict[str, float | None]:
    """Return the metrics by name; the rescaled PRO is NaN where it is undefined, JSON has none."""
    values = asdict(metrics).items()
    return {name: None if value is None or np.isnan(value) else value for name, value in values}


def _images(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Return every image's score, and of defective ones the map's maximum in each region."""
    images = []
    for i, (sample, score) in enumerate(
        zip(evaluation.samples, evaluation.pred_scores, strict=True)
    ):
        name = f"{sample.kind}/{sample.name}{sample.path.suffix}"
        images.append({"name": name, "score": float(score)})
        if sample.is_anomalous and evaluation.masks is not None:
            labels, _ = labelled_regions(evaluation.masks[i : i + 1])
            numbers = np.arange(1, labels.max() + 1)
            maxima = ndimage.maximum(evaluation.anomaly_maps[i], labels[0], numbers)
            images[-1]["regions"] = np.asarray(maxima, np.float64).tolist()
    return images


def _curves(evaluation: Evaluation) -> dict[str, Any]:
    """Return the points of the ROC curve of images, and of the overlap curve of pixels."""
    curves: dict[str, Any] = {"roc": None, "pro": None}
    if evaluation.overall.image_auroc is not None:
        order = np.argsort(-evaluation.pred_scores, kind="stable")
        scores, truth = evaluation.pred_scores[order], evaluation.anomalous[order]
        ends = np.flatnonzero(np.append(np.diff(scores) != 0, True))
        rates = (np.cumsum(found)[ends] / found.sum() for found in (~truth, truth))
        fpr, tpr = ([0.0, *rate.tolist()] for rate in rates)
        curves["roc"] = {"fpr": fpr, "tpr": tpr}
    if evaluation.masks is not None and evaluation.overall.aupro is not None:
        grid = np.linspace(0, FPR_LIMIT, CURVE_POINTS)
        rows = evaluation.has_pixels
        curve = pro_curve(evaluation.masks[rows], evaluation.anomaly_maps[rows])
        overlap = np.interp(grid, *curve)
        curves["pro"] = {"fpr": grid.round(4).tolist(), "overlap": overlap.round(5).tolist()}
    return curves


def candidates(model: Path, engine: str | None, teacher_weights: Path | None) -> list[Candidate]:
    """List what to evaluate of a model: a checkpoint once, a bundle on each engine it can run.

    Args:
        model: a checkpoint or a bundle's folder.
        engine: of a bundle; None takes every one that is verified and installed.
        teacher_weights: for the authors' checkpoints.
    """
    if not model.is_dir():
        checkpoint = load_checkpoint(model, teacher_weights)
        scorer, seed = checkpoint_scorer(checkpoint), _seed(checkpoint.training)
        return [
            Candidate(
                model.name, "torch", "fp32", scorer, seed=seed, bit_depth=checkpoint.bit_depth
            )
        ]
    bundle = Bundle(model)
    usable = [name for name in installed_engines() if name in bundle.manifest.engines]
    # With none, the detector says which one to install.
    chosen: list[str | None] = [engine] if engine or not usable else [*usable]
    detectors = [Detector(bundle, name) for name in chosen]
    return [_candidate(model.name, detector) for detector in detectors]


def _candidate(name: str, detector: Detector) -> Candidate:
    manifest = detector.bundle.manifest
    return Candidate(
        name,
        detector.engine_name,
        manifest.precision,
        detector_scorer(detector),
        detector.calibration,
        _seed(manifest.provenance.get("training")),
        {**manifest.engines[detector.engine_name].parity, "tolerance": manifest.tolerance},
        manifest.input.bit_depth,
    )


def _seed(training: object) -> int | None:
    options = training.get("options") if isinstance(training, dict) else None
    seed = options.get("seed") if isinstance(options, dict) else None
    return seed if isinstance(seed, int) else None


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
    evaluation = evaluate(candidate.scorer, samples, on_images, candidate.bit_depth)
    anomalous, scores = evaluation.anomalous, evaluation.pred_scores
    intervals: dict[str, Interval] = {}
    if evaluation.overall.image_auroc is not None:
        (resamples,) = image_auroc_resamples([scores], anomalous)
        intervals["image_auroc"] = quantile_interval(resamples)
    if evaluation.masks is not None and evaluation.overall.aupro is not None:
        rows = evaluation.has_pixels
        intervals |= pixel_intervals(
            evaluation.masks[rows], evaluation.anomaly_maps[rows], anomalous[rows]
        )
    decisions = None
    if candidate.calibration is not None:
        called = scores > candidate.calibration.image_threshold
        decisions = Decisions(_share(called[~anomalous]), _share(called[anomalous]))
    return Accuracy(candidate, evaluation, intervals, decisions)


def _each_measured(found: Sequence[Candidate], samples: Sequence[Sample]) -> list[Accuracy]:
    measured = []
    for candidate in found:
        with progress(f"{candidate.name} on {candidate.engine}", len(samples)) as on_images:
            measured.append(measure(candidate, samples, on_images))
    return measured


def _share(called: NDArray[np.bool_]) -> float | None:
    return float(called.mean()) if len(called) else None


@dataclass(frozen=True)
class Summary:
    """Several models on the same engine in the same precision, taken together.

    Attributes:
        engine, precision: what they share.
        count: how many models, or categories.
        mean: by metric; None where one of them lacks it.
        deviation: sample standard deviation by metric; None where `mean` is.
    """

    engine: str
    precision: str
    count: int
    mean: dict[str, float | None]
    deviation: dict[str, float | None]


def summarise(accuracies: Sequence[Accuracy]) -> list[Summary]:
    """Return mean and deviation over models for each engine and precision with two or more."""
    groups: dict[tuple[str, str], list[Accuracy]] = {}
    for accuracy in accuracies:
        candidate = accuracy.candidate
        groups.setdefault((candidate.engine, candidate.precision), []).append(accuracy)
    summaries = []
    for (engine, precision), group in groups.items():
        if len(group) < 2:
            continue
        columns = {m: [getattr(a.evaluation.overall, m) for a in group] for m in METRICS}
        complete = {m: column for m, column in columns.items() if None not in column}
        mean = {m: float(np.mean(complete[m])) if m in complete else None for m in METRICS}
        deviation = {
            m: float(np.std(complete[m], ddof=1)) if m in complete else None for m in METRICS
        }
        summaries.append(Summary(engine, precision, len(group), mean, deviation))
    return summaries


def save_gallery(
    detector: Detector,
    samples: Sequence[Sample],
    scores: NDArray[np.float32],
    folder: Path,
    count: int | None = None,
) -> list[dict[str, Any]]:
    """Write input, heat map, overlay and ground truth side by side, a picture a test image.

    Args:
        detector: that scored the images.
        samples: the images.
        scores: float32 (N,), theirs.
        folder: to write into.
        count: pictures of so many that are doubtful; None takes all.

    Returns:
        An entry a picture, the doubtful ones first: good parts from the highest score down and
        defective parts from the lowest up, in turn.
    """
    pairs = list(zip(samples, scores.tolist(), strict=True))
    good = sorted((p for p in pairs if p[0].kind == GOOD), key=lambda p: -p[1])
    bad = sorted((p for p in pairs if p[0].kind != GOOD), key=lambda p: p[1])
    doubtful = [p[0] for both in zip_longest(good, bad) for p in both if p is not None]
    entries: list[dict[str, Any]] = []
    for sample in doubtful[:count]:
        image = read_image(sample.path, detector.bundle.manifest.input.bit_depth)
        mask = read_mask(sample, (image.shape[0], image.shape[1]))
        path = folder / sample.kind / f"{sample.name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        result = detector(image)
        side_by_side(image, result, mask if sample.is_anomalous else None).save(path)
        entry = {"picture": str(path), "kind": sample.kind, "score": result.score}
        entries.append(entry | {"is_anomalous": result.is_anomalous})
    return entries


def accuracy_result(
    models: Sequence[Path],
    data: Path,
    *,
    category: str | None = None,
    every: int = 1,
    engine: str | None = None,
    teacher_weights: Path | None = None,
    gallery: Path | None = None,
    gallery_count: int | None = None,
) -> AccuracyRecord:
    """Evaluate checkpoints and bundles, and return the content of a result file.

    Args:
        models: checkpoints or bundles.
        data: root of a data set.
        category: of the data set; None takes the one that the model's name begins with.
        every: take every so many images only.
        engine: of bundles; None takes every one that is verified and installed.
        teacher_weights: for the authors' checkpoints.
        gallery: folder for pictures; None makes none.
        gallery_count: pictures of so many doubtful images; None takes all.

    Raises:
        DataError: there is no such category, or an image cannot be used.
    """
    outcomes: dict[str, list[Accuracy]] = {}
    pictures: dict[str, list[dict[str, Any]]] = {}
    for model in models:
        name = category or find_category(model, data)
        samples = open_category(data, name).test_samples()[::every]
        measured = _each_measured(candidates(model, engine, teacher_weights), samples)
        outcomes.setdefault(name, []).extend(measured)
        if gallery is not None and model.is_dir():
            scores = measured[0].evaluation.pred_scores
            pictures[name] = save_gallery(
                Detector(model, engine), samples, scores, gallery / name, gallery_count
            )
            note(f"{gallery / name}: {len(pictures[name])} pictures")
    everything = [accuracy for found in outcomes.values() for accuracy in found]
    content = header("accuracy", list(models)) | {
        "categories": {name: [a.to_dict() for a in found] for name, found in outcomes.items()},
        "seeds": {name: [asdict(s) for s in summarise(found)] for name, found in outcomes.items()},
        "means": [asdict(s) for s in summarise(everything)] if len(outcomes) > 1 else [],
        "gallery": pictures,
    }
    record: AccuracyRecord = checked(content)
    return record
