"""Latencies by stage, with their quantiles, in bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

import numpy as np

KEPT = 10_000
"""The last of each stage; quantiles are of these."""


class Latencies:
    """Milliseconds by stage."""

    def __init__(self) -> None:
        self._stages: dict[str, deque[float]] = {}

    def add(self, stages: Mapping[str, float]) -> None:
        """Take the milliseconds of one verdict."""
        for name, milliseconds in stages.items():
            self._stages.setdefault(name, deque(maxlen=KEPT)).append(milliseconds)

    def quantiles(self) -> dict[str, tuple[float, float]]:
        """Return each stage's p50 and p99 in milliseconds."""
        return {
            name: (float(np.quantile(values, 0.5)), float(np.quantile(values, 0.99)))
            for name, values in list(self._stages.items())
        }
