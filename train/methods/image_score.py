"""The score of an image: what is read off its anomaly map, as part of the graph."""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import ceil

from torch import Tensor

from stpm.runtime.errors import CheckpointError

MAXIMUM = "max"
"""The papers' score."""


@dataclass(frozen=True)
class ImageScore:
    """How the pixels of a map become one score.

    Attributes:
        kind: "max", or "topP%" for the mean of the highest P percent, such as "top0.2%".
    """

    kind: str

    def check(self) -> None:
        """Raise CheckpointError for another kind."""
        if self.kind != MAXIMUM and not 0 < self._percent() <= 100:
            raise CheckpointError(
                f"got the score {self.kind!r}, expected max, or topP% for the mean of a map's "
                "highest P percent, such as top0.2%; correct it."
            )

    def _percent(self) -> float:
        match = re.fullmatch(r"top(\d+(?:\.\d+)?)%", self.kind)
        return float(match[1]) if match else 0.0

    def count(self, pixels: int) -> int:
        """Return how many of a map's pixels the score is the mean of, at least one."""
        return 1 if self.kind == MAXIMUM else ceil(self._percent() / 100 * pixels)

    def of(self, maps: Tensor) -> Tensor:
        """Score maps float32 (N,H,W); returns (N,)."""
        count = self.count(maps.shape[1] * maps.shape[2])
        if count == 1:
            return maps.amax(dim=(1, 2))
        return maps.flatten(1).topk(count, dim=1).values.mean(dim=1)
