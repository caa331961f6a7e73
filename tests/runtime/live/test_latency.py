"""Quantiles of latencies, by NumPy over all that was added."""

from __future__ import annotations

import numpy as np
import pytest

from stpm.runtime.live import latency
from stpm.runtime.live.latency import Latencies


def test_quantiles_are_of_the_last_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "KEPT", 50)
    draw = np.random.default_rng(2)
    scores, waits = draw.gamma(2, 10, 130), draw.gamma(1, 5, 30)
    latencies = Latencies()
    assert latencies.quantiles() == {}
    for number, score in enumerate(scores.tolist()):
        stages = {"score": score}
        latencies.add(stages | ({"wait": float(waits[number])} if number < len(waits) else {}))
    found = latencies.quantiles()
    assert found["score"] == pytest.approx(np.quantile(scores[-50:], [0.5, 0.99]), rel=1e-6)
    assert found["wait"] == pytest.approx(np.quantile(waits, [0.5, 0.99]), rel=1e-6)
