"""The score of an image: what is read off its anomaly map, as part of the graph."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from stpm.runtime.errors import CheckpointError
from stpm.runtime.output.map_score import MAXIMUM, percent_of, score_count


@dataclass(frozen=True)
class ImageScore:
    """How the pixels of a map become one score.

    Attributes:
        kind: "max", or "topP%" for the mean of the highest P percent, such as "top0.2%".
    """

    kind: str

    def check(self) -> None:
        """Raise CheckpointError for another kind."""
        if self.kind != MAXIMUM and not 0 < percent_of(self.kind) <= 100:
            raise CheckpointError(
                f"got the score {self.kind!r}, expected max, or topP% for the mean of a map's "
                "highest P percent, such as top0.2%; correct it."
            )

    def of(self, maps: Tensor) -> Tensor:
        """Score maps float32 (N,H,W); returns (N,)."""
        count = score_count(self.kind, maps.shape[1] * maps.shape[2])
        if count == 1:
            return maps.amax(dim=(1, 2))
        return maps.flatten(1).topk(count, dim=1).values.mean(dim=1)
