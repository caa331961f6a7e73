"""Which good images INT8 is quantised on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from stpm.runtime.images.preprocess import FULL_DEPTH, RGB
from stpm.train.datasets import read_images

QUANTIZATION_IMAGES = 32
"""At most, taken evenly from those that were trained on."""
QUANTIZATION_PIXELS = QUANTIZATION_IMAGES << 18
"""Most pixels of all of them, so that 4 GB suffice: 8 images of 1024x1024."""


def quantization_choices(
    paths: Sequence[Path],
    size: tuple[int, int],
    bit_depth: int = FULL_DEPTH,
    channels: int = RGB,
) -> Iterator[Tensor]:
    """Read one choice of images to quantise on after the other, uint8 (N,height,width,channels).

    Each is taken evenly from the paths, and no two share an image.
    """
    height, width = size
    most = max(min(QUANTIZATION_IMAGES, QUANTIZATION_PIXELS // (height * width)), 1)
    step = -(-len(paths) // most)
    for start in range(step):
        _, pixels = read_images(paths[start::step], size, bit_depth=bit_depth)
        yield torch.from_numpy(pixels[..., :channels])
