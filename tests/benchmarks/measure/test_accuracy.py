"""Accuracy of checkpoints and bundles, against the same numbers computed by hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stpm.benchmarks.measure import accuracy
from stpm.benchmarks.measure.accuracy import (
    Candidate,
    Decisions,
    candidates,
    measure,
    save_gallery,
    summarise,
)
from stpm.benchmarks.records.paper import latency_figures, mean_figures, reference_figures
from stpm.runtime import BackendError, Detector
from stpm.runtime import detector as detector_module
from stpm.runtime.bundle.calibration import Calibration
from stpm.runtime.errors import DataError
from stpm.train.datasets import find_category
from stpm.train.datasets import labelled_samples as list_samples
from stpm.train.evaluate import Outputs, Scorer
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
    assert outcome.evaluation.overall.pixel_auroc == pytest.approx(auroc(masks, maps), abs=1e-5)
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


def test_decisions_counted_by_hand(data_root: Path) -> None:
    samples = list_samples(data_root / "weave")
    scorer = fixed_scores([0.1, 0.2, 0.3, 0.9, 0.5, 0.6, 0.95, 0.05])
    calibration = Calibration(0.5, 0.4, 0.1, 9, (0.0, 0.3))
    candidate = Candidate("weave", "fake", "fp32", scorer, calibration)
    outcome = measure(candidate, samples)
    # 0.9 of the good ones; 0.6 and 0.95 of the defects, as 0.5 is not above the threshold.
    assert outcome.decisions == Decisions(false_alarm_rate=1 / 4, detection_rate=2 / 4)
    # Of 16 pairs, 0.5 and 0.6 win 3 each, 0.95 wins 4 and 0.05 none.
    assert outcome.evaluation.overall.image_auroc == 10 / 16


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


def test_a_bundle_without_an_installed_engine_says_what_to_install(
    bundle_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (accuracy, detector_module):
        monkeypatch.setattr(module, "installed_engines", list)
    with pytest.raises(BackendError, match="pip install onnxruntime"):
        candidates(bundle_path, None, None)


def test_the_gallery_begins_with_the_doubtful_images(
    bundle_path: Path, data_root: Path, tmp_path: Path
) -> None:
    samples = list_samples(data_root / "weave")
    detector = Detector(bundle_path)
    found = np.array([detector(sample.path).score for sample in samples], np.float32)
    entries = save_gallery(detector, samples, found, tmp_path)
    paths = [Path(entry["picture"]) for entry in entries]
    assert sorted(p.relative_to(tmp_path) for p in paths) == sorted(
        Path(sample.kind) / f"{sample.path.stem}.png" for sample in samples
    )
    widths = {path.parent.name: Image.open(path).width for path in paths}
    assert widths["hole"] > widths["good"], "only defects have a panel of ground truth"
    scores = {
        kind: [detector(s.path).score for s in samples if s.kind == kind]
        for kind in ("good", "hole")
    }
    assert [e["kind"] for e in entries] == ["good", "hole"] * 4
    assert [e["score"] for e in entries[::2]] == sorted(scores["good"], reverse=True)
    assert [e["score"] for e in entries[1::2]] == sorted(scores["hole"])
    fewer = tmp_path / "fewer"
    few = save_gallery(detector, samples, found, fewer, 3)
    assert [e["score"] for e in few] == [e["score"] for e in entries[:3]]
    assert len(list(fewer.rglob("*.png"))) == 3


def fixed_scores(scores: Sequence[float]) -> Scorer:
    given = iter(scores)

    def scorer(images: Sequence[np.ndarray]) -> Outputs:
        maps = np.random.default_rng(0).random((len(images), 64, 64), np.float32)
        return maps, np.array([next(given) for _ in images], np.float32)

    return scorer


def test_seeds_are_summed_up_by_engine_and_precision(data_root: Path) -> None:
    samples = list_samples(data_root / "weave")
    runs = {
        ("openvino", "fp32"): [
            [1, 2, 3, 4, 5, 6, 7, 8],  # all 16 pairs right
            [1, 2, 3, 9, 5, 6, 7, 8],  # one good image above all: 12 right
        ],
        ("openvino", "fp16"): [[1, 2, 3, 4, 5, 6, 7, 8]],
    }
    outcomes = [
        measure(Candidate("weave", *key, fixed_scores(scores)), samples)
        for key, many in runs.items()
        for scores in many
    ]
    (summary,) = summarise(outcomes)
    assert (summary.engine, summary.precision, summary.count) == ("openvino", "fp32", 2)
    assert summary.mean["image_auroc"] == pytest.approx((1 + 12 / 16) / 2)
    assert summary.deviation["image_auroc"] == pytest.approx(0.25 / 2**0.5)


def test_the_roc_curve_has_the_area_of_the_auroc(data_root: Path) -> None:
    samples = list_samples(data_root / "weave")
    scores = [0.1, 0.2, 0.3, 0.9, 0.5, 0.6, 0.95, 0.2]
    candidate = Candidate("weave", "fake", "fp32", fixed_scores(scores))
    outcome = measure(candidate, samples)
    content = outcome.to_dict()
    roc, pro = content["curves"]["roc"], content["curves"]["pro"]
    area = np.trapezoid(roc["tpr"], roc["fpr"])
    assert area == pytest.approx(outcome.evaluation.overall.image_auroc)
    aupro_found = np.trapezoid(pro["overlap"], pro["fpr"]) / 0.3
    assert aupro_found == pytest.approx(content["overall"]["aupro"], abs=1e-3)
    assert [image["score"] for image in content["images"]] == pytest.approx(scores)
    assert content["images"][-1]["name"] == "hole/003.png"


@pytest.mark.parametrize(
    ("name", "category"),
    [("weave.stpm", "weave"), ("weave_seed1.pt", "weave"), ("weave_fine_a.pt", "weave_fine")],
)
def test_the_category_is_the_longest_that_the_name_begins_with(
    name: str, category: str, tmp_path: Path
) -> None:
    for folder in ("weave", "weave_fine", "w"):
        (tmp_path / folder / "test").mkdir(parents=True)
    assert find_category(Path(name), tmp_path) == category


def test_a_name_of_no_category_is_refused(tmp_path: Path) -> None:
    (tmp_path / "weave/test").mkdir(parents=True)
    with pytest.raises(DataError, match="expected one of weave; name it with --category"):
        find_category(Path("weaver.pt"), tmp_path)


def test_the_papers_figures() -> None:
    figures = reference_figures("bottle")
    assert figures["paper"] == {"pixel_auroc": 0.988, "aupro": 0.951}
    assert figures["authors' code"]["image_auroc"] == 1.0
    assert figures["authors' code"]["pro_rescaled"] == 0.959157
    assert reference_figures("weave") == {}
    means = mean_figures()
    assert means["paper"] == {"image_auroc": 0.955, "pixel_auroc": 0.97, "aupro": 0.921}
    assert means["authors' code"]["image_auroc"] == 0.955488
    assert latency_figures() == {"STPM": 10, "STAD": 223, "SPADE": 5626}
