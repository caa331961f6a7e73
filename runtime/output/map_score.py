"""The score of an image, read off its map: of what counts in it, and from what size on."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import ceil
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from stpm.runtime.output.components import label_regions

UNALIGNED_SCORE = float(np.finfo(np.float32).max)
"""The score of a part that was not found: above every threshold, so that whoever knows of scores
alone rejects it."""
MAXIMUM = "max"
"""The papers' score."""


class View(Protocol):
    """How the camera sees what a map is of, where that was brought to a reference."""

    def to_camera(self, anomaly_map: NDArray[np.float32]) -> NDArray[np.float32]:
        """Bring a map float32 (h,w) into the camera's coordinates."""
        ...

    def labels_to_camera(self, labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Bring labels uint8 (h,w) into the camera's coordinates."""
        ...


Views = Sequence[View | None]
"""Of images, None of a part that was not found."""


@dataclass(frozen=True, eq=False)
class MapScore:
    """What an engine's maps are scored by where not the whole image counts, or not any size.

    Attributes:
        labels: uint8 (h,w): 0 for a pixel that does not count, else 1 plus the index of its
            region of interest.
        weights: a factor for each region's pixels, so that one threshold holds for all.
        names: of the regions; empty for a single one without a name.
        kind: "max" or "topP%", of each region.
        min_area: of the smallest defect that counts, in pixels of the image; 0 for any.
    """

    labels: NDArray[np.uint8]
    weights: tuple[float, ...]
    names: tuple[str, ...] = ()
    kind: str = MAXIMUM
    min_area: int = 0

    @cached_property
    def _factors(self) -> NDArray[np.float32]:
        return np.array([0.0, *self.weights], np.float32)[self.labels]

    @cached_property
    def _members(self) -> list[NDArray[np.bool_]]:
        return [self.labels == 1 + index for index in range(len(self.weights))]

    def weigh(self, anomaly_maps: NDArray[np.float32]) -> NDArray[np.float32]:
        """Weigh maps float32 (...,h,w) of an engine; what does not count becomes 0."""
        return anomaly_maps * self._factors

    def roi_scores(
        self, weighted: NDArray[np.float32], image_size: tuple[int, int]
    ) -> NDArray[np.float32]:
        """Score each region of interest.

        Args:
            weighted: float32 (h,w), from `weigh`.
            image_size: (height, width) in pixels of the image.

        Returns:
            float32 (R,), to be held against the image threshold; the image's score is the highest.
        """
        needed = map_pixels(self.min_area, weighted.size, image_size)
        return np.array(
            [self._score(weighted, inside, needed) for inside in self._members], np.float32
        )

    def _score(
        self, weighted: NDArray[np.float32], inside: NDArray[np.bool_], needed: int
    ) -> float:
        if not inside.any():
            return 0.0  # a region beyond a golden map that is a corner of the whole
        if needed > 1:
            return _peak_of_area(weighted, inside, needed)
        values = weighted[inside]
        count = score_count(self.kind, values.size)
        if count == 1:
            return float(values.max())
        return float(np.partition(values, -count)[-count:].mean(dtype=np.float64))

    def __call__(
        self,
        anomaly_maps: NDArray[np.float32],
        image_sizes: Sequence[tuple[int, int]],
        views: Views | None = None,
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Score an engine's maps float32 (N,h,w) of images of these sizes.

        Args:
            anomaly_maps: of the engine.
            image_sizes: (height, width) in pixels of the images.
            views: of parts that were aligned; None where none were to be.

        Returns:
            The weighted maps float32 (N,h,w), in the camera's coordinates, and each region's
            scores, float32 (N,R).
        """
        if views is None:
            weighted = self.weigh(anomaly_maps)
            pairs = zip(weighted, image_sizes, strict=True)
            return weighted, np.stack([self.roi_scores(one, size) for one, size in pairs])
        seen = [self._seen(*one) for one in zip(anomaly_maps, image_sizes, views, strict=True)]
        maps, scores = zip(*seen, strict=True)
        return np.stack(maps), np.stack(scores)

    def _seen(
        self, anomaly_map: NDArray[np.float32], image_size: tuple[int, int], view: View | None
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Weigh and score a map where the camera saw it, and every region of it."""
        if view is not None:
            moved = replace(self, labels=view.labels_to_camera(self.labels))
            if all(inside.any() for inside in moved._members):
                weighted = moved.weigh(view.to_camera(anomaly_map))
                return weighted, moved.roi_scores(weighted, image_size)
        unseen = np.full(len(self.weights), UNALIGNED_SCORE, np.float32)
        return np.zeros_like(anomaly_map), unseen


def score_count(kind: str, pixels: int) -> int:
    """Return how many of a map's highest pixels a score is the mean of, at least one."""
    return 1 if kind == MAXIMUM else max(1, ceil(percent_of(kind) / 100 * pixels))


def percent_of(kind: str) -> float:
    """Read P of "topP%"; 0 for another kind."""
    match = re.fullmatch(r"top([0-9]{1,3}(?:\.[0-9]{1,9})?)%", kind)
    return float(match[1]) if match else 0.0


def map_pixels(area: int, map_size: int, image_size: tuple[int, int]) -> int:
    """Return how many of a map's `map_size` pixels cover an area of the image, rounded up."""
    return -(-area * map_size // (image_size[0] * image_size[1]))


def _peak_of_area(values: NDArray[np.float32], inside: NDArray[np.bool_], needed: int) -> float:
    """Return the highest level at or above which a connected area has so many pixels.

    It is the maximum of the map's area opening; of an `inside` without such an area it is the
    lowest value.

    Source: Vincent, "Morphological area openings and closings for grey-scale images", 1993.
    """
    levels = np.sort(values[inside])[::-1]

    def has_area(rank: int) -> bool:
        labels = label_regions(inside & (values >= levels[rank]))
        return bool(np.bincount(labels.ravel())[1:].max() >= needed)

    low, high = needed - 1, needed - 1  # the ranks between which the level lies
    if low >= len(levels):
        return float(levels[-1])
    while not has_area(high):
        if high == len(levels) - 1:
            return float(levels[-1])
        low, high = high + 1, min(2 * high + 1, len(levels) - 1)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if has_area(middle) else (middle + 1, high)
    return float(levels[high])
