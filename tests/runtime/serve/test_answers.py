"""Outputs of served models: a threshold in float32 decides as the one in float64."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stpm.runtime.output.result import Result
from stpm.runtime.serve.answers import answers, served_threshold

FINITE = st.floats(-1e30, 1e30)


@given(FINITE, st.integers(-2, 2))
def test_a_served_threshold_decides_as_the_bundle_does(threshold: float, steps: int) -> None:
    score = np.float32(threshold)
    for _ in range(abs(steps)):
        score = np.nextafter(score, np.float32(np.sign(steps) * np.inf))
    assert bool(score > served_threshold(threshold)) == (float(score) > threshold)


def test_answers_are_a_row_an_image_and_only_what_was_asked_for() -> None:
    maps = np.arange(12, dtype=np.float32).reshape(2, 2, 3)
    scores = (0.25, 0.5)
    results = [Result(s, m, 0.25, 7.5, (4, 6), 0.125) for s, m in zip(scores, maps, strict=True)]
    wanted = ["anomaly_map", "pred_score", "threshold", "is_anomalous", "is_warned"]
    found = answers(results, wanted)
    assert set(found) == set(wanted)
    assert found["is_warned"].tolist() == [[True], [False]]
    assert found["pred_score"].tolist() == [[0.25], [0.5]]
    assert found["is_anomalous"].tolist() == [[False], [True]]
    assert found["threshold"].dtype == found["pred_score"].dtype == np.float32
    np.testing.assert_array_equal(found["anomaly_map"], maps)
