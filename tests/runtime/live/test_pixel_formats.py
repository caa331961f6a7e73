"""Buffers of cameras, against the layouts that the naming convention describes."""

from __future__ import annotations

import numpy as np
import pytest

from stpm.runtime.errors import DataError
from stpm.runtime.live.sources.pixel_formats import BAYER, COLOUR, MONO, to_image

CODES = {name: code for code, name in (MONO | COLOUR | BAYER).items()}


@pytest.mark.parametrize(
    ("name", "bits"), [("Mono8", 8), ("Mono10", 10), ("Mono12", 12), ("Mono16", 16)]
)
def test_grey_keeps_its_values(name: str, bits: int) -> None:
    kind = np.uint8 if bits == 8 else np.uint16
    values = np.random.default_rng(0).integers(0, 1 << bits, (5, 7)).astype(kind)
    content = values.astype("<u2").tobytes() if bits > 8 else values.tobytes()
    image = to_image(content + b"padding", 5, 7, CODES[f"Mono{bits}"])
    assert image.dtype == kind
    np.testing.assert_array_equal(image, values)


def test_colour_comes_out_as_rgb() -> None:
    rgb = np.random.default_rng(1).integers(0, 256, (4, 6, 3)).astype(np.uint8)
    np.testing.assert_array_equal(to_image(rgb.tobytes(), 4, 6, CODES["RGB8"]), rgb)
    bgr = np.ascontiguousarray(rgb[..., ::-1])
    np.testing.assert_array_equal(to_image(bgr.tobytes(), 4, 6, CODES["BGR8"]), rgb)


@pytest.mark.parametrize("name", [name for name in CODES if name.startswith("Bayer")])
def test_a_mosaic_of_one_colour_is_that_colour(name: str) -> None:
    bits = int(name[7:])
    colour = {"R": 200, "G": 90, "B": 30}
    corner = [name[5], name[6]], {"GR": "BG", "RG": "GB", "GB": "RG", "BG": "GR"}[name[5:7]]
    tile = np.array([[colour[letter] for letter in row] for row in corner])
    mosaic = np.tile(tile, (6, 6)) << (bits - 8)
    content = mosaic.astype(np.uint8 if bits == 8 else "<u2").tobytes()
    image = to_image(content, 12, 12, CODES[name])
    assert image.dtype == (np.uint8 if bits == 8 else np.uint16)
    inner = image[3:-3, 3:-3].reshape(-1, 3) >> (bits - 8)
    np.testing.assert_array_equal(np.unique(inner, axis=0), [[200, 90, 30]])


def test_what_cannot_be_read_is_said() -> None:
    with pytest.raises(DataError, match="got pixel format 0x1234"):
        to_image(bytes(100), 5, 5, 0x1234)
    with pytest.raises(DataError, match="got 24 bytes from a camera, expected 25 for 5x5 Mono8"):
        to_image(bytes(24), 5, 5, CODES["Mono8"])
