"""Disturbed copies of the good images, for lines whose light and position vary."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2

SHIFT = 0.03
"""Of the image's sides, to either side."""
ROTATION = 3.0
"""Degrees, to either side."""
BRIGHTNESS = 0.2
"""Share of the brightness, and of the contrast, up or down."""
BLUR = (0.1, 1.0)
"""Deviation of the Gaussian in pixels, from and to."""


class Augmentation:
    """Shifts, turns, brightens or dims, and blurs each image by random amounts.

    What becomes of an image depends on the seed, the epoch and its index alone, so that a resumed
    run sees the same images.
    """

    def __init__(self, seed: int, size: tuple[int, int]) -> None:
        """Prepare images of (height, width)."""
        self._seed = seed
        height, width = size
        self._change = v2.Compose(
            [
                # Mirrored at the borders: black corners would be taught as good.
                v2.Pad([width // 8, height // 8], padding_mode="reflect"),
                v2.RandomAffine(ROTATION, (SHIFT, SHIFT), interpolation=InterpolationMode.BILINEAR),
                v2.CenterCrop([height, width]),
                v2.ColorJitter(brightness=BRIGHTNESS, contrast=BRIGHTNESS),
                v2.GaussianBlur(5, BLUR),
            ]
        )

    def __call__(self, images: Tensor, index: Tensor, epoch: int) -> Tensor:
        """Disturb images uint8 (B,H,W,3), which are those of the index (B,) in this epoch."""
        changed = []
        with torch.random.fork_rng(devices=[]):
            for image, number in zip(images, index.tolist(), strict=True):
                seed = np.random.SeedSequence((self._seed, epoch, number)).generate_state(1)
                torch.manual_seed(int(seed[0]))
                changed.append(self._change(image.permute(2, 0, 1)).permute(1, 2, 0))
        return torch.stack(changed)
