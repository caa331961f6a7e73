"""Drawn parts whose place is known, for tests of aligning."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

SIZE = (96, 128)
"""(height, width) in pixels."""
OUTLINE = [(-40, -16), (8, -16), (8, -30), (24, -30), (24, -8), (42, -8), (42, 20), (-40, 20)]
HOLES = [[(-30, -6), (-14, -6), (-14, 10), (-30, 10)], [(26, 0), (36, 0), (36, 12)]]
DEFECT = [(-6, -4), (2, -4), (2, 4), (-6, 4)]
"""(x, y) in pixels from the image's centre."""
_FINE = 4


def draw_part(
    shift: tuple[float, float] = (0, 0),
    degrees: float = 0,
    *,
    defect: bool = False,
    seed: int = 0,
    size: tuple[int, int] = SIZE,
) -> NDArray[np.uint8]:
    """Draw a part that is turned about the image's centre and then shifted.

    Args:
        shift: (x, y) in pixels of `SIZE`.
        degrees: clockwise as it is seen.
        defect: whether it has a bright spot.
        seed: of the noise.
        size: (height, width) in pixels to draw it at.

    Returns:
        uint8 (H,W,3).
    """
    scale = size[1] / SIZE[1]
    canvas = Image.new("L", (size[1] * _FINE, size[0] * _FINE), 70)
    draw = ImageDraw.Draw(canvas)
    shapes = [(OUTLINE, 160), *((hole, 40) for hole in HOLES)]
    for corners, grey in [*shapes, *([(DEFECT, 250)] if defect else [])]:
        moved = (place(corner, shift, degrees) for corner in corners)
        draw.polygon([(x * scale * _FINE, y * scale * _FINE) for x, y in moved], fill=grey)
    grey = np.asarray(canvas.reduce(_FINE), np.float64)
    noisy = grey + np.random.default_rng(seed).normal(0, 3, grey.shape)
    return np.repeat(noisy.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)


def place(
    corner: tuple[float, float], shift: tuple[float, float], degrees: float
) -> tuple[float, float]:
    """Return where a corner of the part lies in the image, (x, y) from its top left."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    x, y = cos * corner[0] - sin * corner[1], sin * corner[0] + cos * corner[1]
    return x + shift[0] + SIZE[1] / 2, y + shift[1] + SIZE[0] / 2
