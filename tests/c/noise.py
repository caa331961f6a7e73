"""Images of noise in every format of libstpm, which its tests compute as well."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FORMATS = ("grey", "rgb", "bgr", "rgba", "bgra")
FORMATS += tuple(f"{name}16" for name in FORMATS)
"""In the order of stpm_format."""
CHANNELS = (1, 3, 3, 4, 4) * 2
SAMPLE_BYTES = (1,) * 5 + (2,) * 5


def pixels(count: int, seed: int) -> NDArray[np.uint8]:
    """Bytes that C computes as well, so that large images need no file: `noise` in golden.hpp."""
    h = np.arange(count, dtype=np.uint32) + np.uint32(seed * 0x9E3779B9 & 0xFFFFFFFF)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        h = (h ^ (h >> np.uint32(shift))) * np.uint32(factor)
    return (h >> np.uint32(24)).astype(np.uint8)


def row_bytes(form: int, width: int) -> int:
    """Bytes of a row without a gap."""
    return width * CHANNELS[form] * SAMPLE_BYTES[form]


def image(
    form: int, height: int, width: int, stride: int, seed: int, bit_depth: int = 16
) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """An image as C sees it, in RGB(A) or grey."""
    content = pixels(height * stride, seed)
    if SAMPLE_BYTES[form] == 2:
        content >>= 16 - bit_depth
    rows = content.reshape(height, stride)[:, : row_bytes(form, width)]
    samples = np.ascontiguousarray(rows).view(np.uint8 if SAMPLE_BYTES[form] == 1 else np.uint16)
    whole = samples.reshape(height, width, CHANNELS[form])
    return whole[..., [2, 1, 0]] if FORMATS[form].startswith("bgr") else whole
