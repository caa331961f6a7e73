"""What light and focus do to an image, in three numbers that are cheap to compute."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

STATISTICS = ("brightness", "sharpness", "saturation")
ROWS = 256
"""At most so many rows of an image are looked at, evenly spread."""
CLIPPED = 254
"""A pixel with a channel from here on is overexposed."""


def image_statistics(image: NDArray[np.uint8]) -> dict[str, float]:
    """Measure an image.

    Args:
        image: uint8 (H,W,3) in RGB, or (H,W,1), whose one plane stands for all.

    Returns:
        `brightness`: mean grey level of green, 0 to 255. `sharpness`: mean difference of
        neighbouring pixels of a row, as a share of the brightness, so that dimming alone does not
        change it. `saturation`: share of pixels with a channel of 254 or 255.
    """
    rows = image[:: max(1, -(-len(image) // ROWS))]
    green = rows[..., rows.shape[2] // 2].astype(np.int16)
    brightness = float(green.mean())
    clipped = (rows[..., 0] >= CLIPPED) | (green >= CLIPPED) | (rows[..., -1] >= CLIPPED)
    difference = float(np.abs(np.diff(green, axis=1)).mean()) if green.shape[1] > 1 else 0.0
    return {
        "brightness": brightness,
        "sharpness": difference / max(brightness, 1.0),
        "saturation": float(clipped.mean()),
    }
