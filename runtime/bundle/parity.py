"""How far an engine may stand from the FP32 reference, and how far it does."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

TOLERANCES = {"fp32": 1e-4, "fp16": 3e-2, "bf16": 0.1, "int8": 0.1}
"""Largest difference of a map, relative to the map's maximum, by precision.

The reference is torch in FP32, in INT8 torch's simulation of it, since engines round a value
halfway between two integers either way. Processors that compute in bfloat16 differ by up to 0.083
of the low maps of good images, a GPU that computes in FP16 by up to 0.014.
"""


@dataclass(frozen=True, order=True)
class Parity:
    """The largest differences over a set of images.

    Attributes:
        map_difference: of a map's pixel, relative to that map's maximum in the reference.
        score_difference: of a score, relative to the score in the reference.
    """

    map_difference: float
    score_difference: float

    def holds(self, tolerance: float) -> bool:
        """Whether both are within the tolerance; never when a value is not finite."""
        return self.map_difference <= tolerance and self.score_difference <= tolerance


def compare(
    reference_maps: NDArray[np.float32],
    reference_scores: NDArray[np.float32],
    anomaly_maps: NDArray[np.float32],
    pred_scores: NDArray[np.float32],
) -> Parity:
    """Measure the differences between two sets of maps (N,h,w) and scores (N,).

    They are infinite between arrays of different shapes.
    """
    if anomaly_maps.shape != reference_maps.shape or pred_scores.shape != reference_scores.shape:
        return Parity(float("inf"), float("inf"))
    # Only keeps a map of zeros from dividing by zero.
    floor = np.finfo(np.float32).tiny
    peaks = np.maximum(np.abs(reference_maps).max(axis=(1, 2)), floor)
    maps = np.abs(anomaly_maps - reference_maps).max(axis=(1, 2)) / peaks
    scores = np.abs(pred_scores - reference_scores) / np.maximum(np.abs(reference_scores), floor)
    return Parity(float(maps.max()), float(scores.max()))
