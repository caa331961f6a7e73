"""How a bundle's maps become scores: what of an image counts, and from what size on."""

from __future__ import annotations

import re
from dataclasses import dataclass
from reprlib import repr as brief
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stpm.runtime.bundle.alignment import Alignment
from stpm.runtime.output.map_score import MAXIMUM, MapScore, percent_of

OWN = "graph"
"""A score that the graph makes of more than its map."""
MOST_ROIS = 16
MAX_AREA = 1 << 28
"""Pixels, those of the largest image."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True)
class Scoring:
    """How the pixels of a map become the score of an image.

    Attributes:
        kind: "max"; "topP%" for the mean of the highest P percent, such as "top0.2%"; or "graph"
            for a score that is not read off the map.
        min_area: of the smallest defect that counts, in pixels of the image; 0 for any.
        rois: names of the regions of interest; empty where the whole image counts.
        align: how far parts may lie from the reference; None for images that are scored as they
            are.
    """

    kind: str = OWN
    min_area: int = 0
    rois: tuple[str, ...] = ()
    align: Alignment | None = None

    @property
    def is_graphs(self) -> bool:
        """Whether the graph's own score is the image's."""
        return not self.min_area and not self.rois and self.align is None

    def check(self) -> None:
        """Raise ValueError for what no map can be scored by."""
        if self.kind not in (MAXIMUM, OWN) and not 0 < percent_of(self.kind) <= 100:
            raise ValueError(
                f"got the score {brief(self.kind)}, expected {MAXIMUM}, {OWN}, or topP% for the "
                "mean of a map's highest P percent, such as top0.2%"
            )
        if (self.rois or self.align) and self.kind == OWN:
            asked = "regions of interest" if self.rois else "a reference to align to"
            raise ValueError(
                f"got {asked}, but the score does not come from the map, expected the score max or "
                "topP%"
            )
        if self.min_area and self.kind != MAXIMUM:
            raise ValueError(
                f"got a smallest defect of {self.min_area} pixels with the score {self.kind}, "
                f"expected the score {MAXIMUM}"
            )
        if len(self.rois) > MOST_ROIS or len(set(self.rois)) < len(self.rois):
            raise ValueError(
                f"got {len(self.rois)} regions of interest, expected at most {MOST_ROIS}, "
                "each with a different name"
            )
        for name in self.rois:
            if not _NAME.fullmatch(name):
                raise ValueError(
                    f"got a region of interest named {brief(name)}, expected up to 64 letters, "
                    "digits, dots, dashes or underscores"
                )

    def map_score(self, labels: NDArray[np.uint8], weights: tuple[float, ...] = ()) -> MapScore:
        """Return what scores maps.

        Args:
            labels: uint8 (h,w), see `MapScore`.
            weights: of the regions of interest; empty for 1 each.
        """
        count = max(1, len(self.rois))
        return MapScore(labels, weights or (1.0,) * count, self.rois, self.kind, self.min_area)

    def golden_scores(
        self, labels: NDArray[np.uint8], golden_maps: NDArray[np.float32], size: tuple[int, int]
    ) -> NDArray[np.float32]:
        """Score golden maps with weights of 1, float32 (N,R).

        Args:
            labels: of the whole map; golden maps of a bundle with tiles are its top left corner.
            golden_maps: float32 (N,h,w).
            size: (height, width) in pixels of the golden images.
        """
        height, width = golden_maps.shape[1:]
        scored = self.map_score(labels[:height, :width])
        return scored(golden_maps, [size] * len(golden_maps))[1]

    @classmethod
    def from_dict(cls, values: Any) -> Scoring:
        """Read a manifest's `scoring`; ValueError for what it may not be."""
        if not isinstance(values, dict):
            raise ValueError(f"scoring is {brief(values)}, expected an object")
        kind, area, rois = (values.get(key) for key in ("kind", "min_area", "rois"))
        if not isinstance(kind, str):
            raise ValueError(f"scoring: kind is {brief(kind)}, expected a text")
        if type(area) is not int or not 0 <= area <= MAX_AREA:
            raise ValueError(
                f"scoring: min_area is {brief(area)}, expected an integer in 0..{MAX_AREA}"
            )
        if not isinstance(rois, list) or not all(isinstance(name, str) for name in rois):
            raise ValueError(f"scoring: rois is {brief(rois)}, expected a list of names")
        align = values.get("align")
        scoring = cls(
            kind, area, tuple(rois), None if align is None else Alignment.from_dict(align)
        )
        try:
            scoring.check()
        except ValueError as error:
            raise ValueError(f"scoring by kind, min_area, rois and align: {error}") from None
        return scoring
