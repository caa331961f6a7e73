"""Images that are shifted and turned, as parts are that lie with some play."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Movement:
    """How far images are shifted along each axis, as a share of the longer side, and turned."""

    shift: float
    degrees: float
    seed: int

    def matrices(self, sizes: Sequence[tuple[int, int]]) -> list[NDArray[np.float64]]:
        """Draw a movement for each image, float64 (2,3): uniform within the limits."""
        draw = np.random.default_rng(self.seed)
        matrices = []
        for height, width in sizes:
            turn = math.radians(draw.uniform(-self.degrees, self.degrees))
            shift = draw.uniform(-self.shift, self.shift, 2) * max(height, width)
            cos, sin = math.cos(turn), math.sin(turn)
            rotation = np.array([[cos, -sin], [sin, cos]])
            centre = np.array([(width - 1) / 2, (height - 1) / 2])
            matrices.append(np.column_stack([rotation, centre + shift - rotation @ centre]))
        return matrices


def moved_by(image: NDArray[np.uint8], matrix: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Move an image uint8 (H,W,3), or a mask (H,W); what comes in repeats the edge."""
    flags = cv2.INTER_LINEAR if image.ndim == 3 else cv2.INTER_NEAREST
    size = image.shape[1], image.shape[0]
    moved = cv2.warpAffine(image, matrix, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(moved, np.uint8)
