"""Accuracy of checkpoints and bundles, against the same numbers computed by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stpm.benchmarks.accuracy import candidates, measure, save_gallery
from stpm.benchmarks.paper import reference_figures
from stpm.runtime import BackendError, Detector
from stpm.train.datasets import test_samples as list_samples
from stpm.train.metrics import aupro, auroc


def test_a_bundle_is_scored_as_its_detector_scores(bundle_path: Path, data_root: Path) -> None:
    samples = list_samples(data_root / "weave")
    (candidate,) = candidates(bundle_path, "onnxruntime", None)
    outcome = measure(candidate, samples)

    detector = Detector(bundle_path, "onnxruntime")
    results = [detector(sample.path) for sample in samples]
    scores = np.array([result.score for result in results], np.float32)
    maps = np.stack([result.anomaly_map for result in results])
    anomalous = np.array([sample.kind == "hole" for sample in samples])
    masks = np.zeros(maps.shape, bool)
    for i, sample in enumerate(samples):
        if sample.mask is not None:
            masks[i] = np.asarray(Image.open(sample.mask)) > 0
    assert outcome.evaluation.overall.image_auroc == auroc(anomalous, scores)
    assert outcome.evaluation.overall.aupro == pytest.approx(aupro(masks, maps), abs=1e-5)
    assert list(outcome.evaluation.by_kind) == ["hole"]


def test_decisions_count_images_above_the_threshold(bundle_path: Path, data_root: Path) -> None:
    samples = list_samples(data_root / "weave")
    (candidate,) = candidates(bundle_path, "onnxruntime", None)
    outcome = measure(candidate, samples)
    assert outcome.decisions is not None
    detector = Detector(bundle_path, "onnxruntime")
    called = {sample: detector(sample.path).is_anomalous for sample in samples}
    good = [called[sample] for sample in samples if not sample.is_anomalous]
    bad = [called[sample] for sample in samples if sample.is_anomalous]
    assert outcome.decisions.false_alarm_rate == sum(good) / 4
    assert outcome.decisions.detection_rate == sum(bad) / 4


def test_checkpoint_and_bundle_agree(
    checkpoint_path: Path, bundle_path: Path, data_root: Path
) -> None:
    samples = list_samples(data_root / "weave")
    both = candidates(checkpoint_path, None, None) + candidates(bundle_path, None, None)
    assert both[0].engine == "torch"
    outcomes = [measure(candidate, samples) for candidate in both]
    assert len(outcomes) >= 2
    for outcome in outcomes[1:]:
        np.testing.assert_allclose(
            outcome.evaluation.pred_scores, outcomes[0].evaluation.pred_scores, rtol=1e-4
        )
        assert outcome.evaluation.overall.pixel_auroc == pytest.approx(
            outcomes[0].evaluation.overall.pixel_auroc, abs=1e-4
        )
    assert outcomes[0].decisions is None


def test_an_engine_that_the_bundle_lacks_is_refused(bundle_path: Path) -> None:
    with pytest.raises(BackendError, match="tensorrt"):
        candidates(bundle_path, "tensorrt", None)


def test_the_gallery_has_a_picture_of_every_image(
    bundle_path: Path, data_root: Path, tmp_path: Path
) -> None:
    samples = list_samples(data_root / "weave")
    paths = save_gallery(Detector(bundle_path), samples, tmp_path)
    assert sorted(p.relative_to(tmp_path) for p in paths) == sorted(
        Path(sample.kind) / f"{sample.path.stem}.png" for sample in samples
    )
    widths = {path.parent.name: Image.open(path).width for path in paths}
    assert widths["hole"] > widths["good"], "only defects have a panel of ground truth"


def test_the_papers_figures() -> None:
    figures = reference_figures("bottle")
    assert figures["paper"] == {"pixel_auroc": 0.988, "aupro": 0.951}
    assert figures["authors' code"]["image_auroc"] == 1.0
    assert figures["authors' code"]["pro_rescaled"] == 0.959157
    assert reference_figures("weave") == {}
