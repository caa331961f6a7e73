"""Latencies by stage, with their quantiles, in bounded memory."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

KEPT = 10_000
"""The last of each stage; quantiles are of these."""


class Latencies:
    """Milliseconds by stage."""

    def __init__(self) -> None:
        self._stages: dict[str, NDArray[np.float32]] = {}
        self._counts: dict[str, int] = {}

    def add(self, stages: Mapping[str, float]) -> None:
        """Take the milliseconds of one verdict."""
        for name, milliseconds in stages.items():
            # All of it at once, so that a station needs no more after a day than after a minute.
            values = self._stages.setdefault(name, np.full(KEPT, np.nan, np.float32))
            count = self._counts.get(name, 0)
            values[count % KEPT] = milliseconds
            self._counts[name] = count + 1

    def quantiles(self) -> dict[str, tuple[float, float]]:
        """Return each stage's p50 and p99 in milliseconds."""
        found = {}
        for name, count in list(self._counts.items()):
            p50, p99 = np.quantile(self._stages[name][:count], [0.5, 0.99])
            found[name] = float(p50), float(p99)
        return found
