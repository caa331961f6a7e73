"""The graph with its verdict: the same maps and scores, and decisions as the runtime's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from numpy.typing import NDArray

from stpm.runtime.bundle.archive import MODEL, Bundle
from stpm.runtime.detector import Detector

pytest.importorskip("onnx")
from stpm.runtime.serve.verdict_graph import with_verdict


def run(model: bytes, images: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(names, {"images": images}), strict=True))


@pytest.mark.parametrize("count", [1, 3])
def test_maps_and_scores_are_the_bundles_bit_for_bit(weave: Path, count: int) -> None:
    bundle = Bundle(weave)
    detector = Detector(bundle, "onnxruntime")
    images = bundle.golden().images[:count]
    maps, scores = detector.infer(images)
    found = run(with_verdict(bundle.read(MODEL), detector.calibration), images)
    np.testing.assert_array_equal(found["anomaly_map"], maps)
    np.testing.assert_array_equal(found["pred_score"], scores[:, None])
    decided = [r.is_anomalous for r in detector.decide([(64, 64)] * count, (maps, scores))]
    assert found["is_anomalous"].tolist() == [[verdict] for verdict in decided]
    for name, value in (
        ("threshold", detector.calibration.image_threshold),
        ("pixel_threshold", detector.calibration.pixel_threshold),
    ):
        np.testing.assert_allclose(found[name], np.full((count, 1), value), rtol=1e-7)


def test_a_score_on_the_threshold_is_no_anomaly_and_the_next_one_is(weave: Path) -> None:
    bundle = Bundle(weave)
    detector = Detector(bundle, "onnxruntime")
    images = bundle.golden().images[:1]
    score = detector.infer(images)[1][0]
    for threshold, verdict in ((score, False), (np.nextafter(score, np.float32(0)), True)):
        calibration = replace(detector.calibration, image_threshold=float(threshold))
        found = run(with_verdict(bundle.read(MODEL), calibration), images)
        assert found["is_anomalous"].tolist() == [[verdict]]


@pytest.mark.parametrize("above", [True, False])
def test_a_score_above_the_limit_for_warnings_alone_is_warned_of(weave: Path, above: bool) -> None:
    bundle = Bundle(weave)
    detector = Detector(bundle, "onnxruntime")
    images = bundle.golden().images
    scores = detector.infer(images)[1]
    low, high = float(scores.min()), float(scores.max())
    threshold = low - 1 if above else high
    calibration = replace(
        detector.calibration, image_threshold=threshold, warn_threshold=low - 2 if above else low
    )
    found = run(with_verdict(bundle.read(MODEL), calibration), images)
    assert found["is_anomalous"].ravel().tolist() == [above] * len(images)
    expected = [not above and score > low for score in scores]
    assert found["is_warned"].ravel().tolist() == expected
    assert above or any(expected)
    # Without such a limit nothing is warned of.
    without = replace(calibration, warn_threshold=None, warn_rate=None)
    assert not run(with_verdict(bundle.read(MODEL), without), images)["is_warned"].any()
