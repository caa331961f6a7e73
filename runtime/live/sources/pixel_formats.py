"""The pixel formats of GenICam cameras, as images.

Source: the GenICam Pixel Format Naming Convention (PFNC) 2.4, whose codes these are.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from stpm.runtime.errors import DataError

Image = NDArray[np.uint8] | NDArray[np.uint16]

MONO = {0x0108_0001: "Mono8", 0x0110_0003: "Mono10", 0x0110_0005: "Mono12", 0x0110_0007: "Mono16"}
COLOUR = {0x0218_0014: "RGB8", 0x0218_0015: "BGR8"}
BAYER = {
    0x0108_0008: "BayerGR8",
    0x0108_0009: "BayerRG8",
    0x0108_000A: "BayerGB8",
    0x0108_000B: "BayerBG8",
    0x0110_000C: "BayerGR10",
    0x0110_000D: "BayerRG10",
    0x0110_000E: "BayerGB10",
    0x0110_000F: "BayerBG10",
    0x0110_0010: "BayerGR12",
    0x0110_0011: "BayerRG12",
    0x0110_0012: "BayerGB12",
    0x0110_0013: "BayerBG12",
}
KNOWN = MONO | COLOUR | BAYER
_DEMOSAIC = {
    "GR": cv2.COLOR_BayerGRBG2RGB,
    "RG": cv2.COLOR_BayerRGGB2RGB,
    "GB": cv2.COLOR_BayerGBRG2RGB,
    "BG": cv2.COLOR_BayerBGGR2RGB,
}


def to_image(content: bytes, height: int, width: int, code: int) -> Image:
    """Make an image of a camera's buffer.

    Args:
        content: rows without gaps, samples of 10 to 16 bits in two bytes each, the low one first.
        height, width: in pixels.
        code: the PFNC code of the format.

    Returns:
        uint8 or uint16, (H,W) for grey, (H,W,3) in RGB for colour. Deep samples keep their values:
        a bundle knows how many bits its camera uses.

    Raises:
        DataError: the format is none of these, or the buffer is too short.
    """
    if code not in KNOWN:
        raise DataError(
            f"got pixel format {code:#x} from a camera, expected "
            f"{', '.join(KNOWN.values())}; choose one with --pixel-format."
        )
    channels = 3 if code in COLOUR else 1
    is_deep = code & 0x00FF_0000 == 0x0010_0000
    needed = height * width * channels * (2 if is_deep else 1)
    if len(content) < needed:
        raise DataError(
            f"got {len(content)} bytes from a camera, expected {needed} for {width}x{height} "
            f"{KNOWN[code]}; check its cable and network."
        )
    count = height * width * channels
    samples: NDArray[Any] = (
        np.frombuffer(content, "<u2", count).astype(np.uint16)
        if is_deep
        else np.frombuffer(content, np.uint8, count)
    )
    if code in COLOUR:
        rgb = samples.reshape(height, width, 3)
        return np.ascontiguousarray(rgb if COLOUR[code] == "RGB8" else rgb[..., ::-1])
    grey = samples.reshape(height, width)
    if code in MONO:
        return grey
    colour: NDArray[Any] = np.asarray(cv2.cvtColor(grey, _DEMOSAIC[BAYER[code][5:7]]))
    return colour
