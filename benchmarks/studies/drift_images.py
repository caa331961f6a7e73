"""Real images as a camera sees them again: with noise, dimmed, out of focus, of another tint."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from stpm.runtime.bundle.image_statistics import image_statistics
from stpm.runtime.detector import Detector
from stpm.runtime.errors import DataError
from stpm.runtime.images.preprocess import RGB, load_image
from stpm.runtime.live.drift import TESTS

Array = NDArray[np.float64]

LIGHT = 0.01
"""Standard deviation of the light from image to image, as a share."""
NOISE = 1.0
"""Standard deviation of a pixel, in grey levels of 255."""
GAINS = tuple(round(0.8 + 0.04 * step, 2) for step in range(11))
"""Shares of the light in which every good image is scored."""


@dataclass(frozen=True)
class Look:
    """How images come out.

    Attributes:
        gain: share of the light.
        blur: standard deviation of the lens's spot, in pixels of the image.
        tint: share by which red is lower and blue higher.
    """

    gain: float = 1.0
    blur: float = 0.0
    tint: float = 0.0


PLAIN = Look()


@dataclass(frozen=True)
class Pools:
    """What was measured of images, in the order of `TESTS`, to draw streams from.

    Attributes:
        still: (renditions x images, tests) of undisturbed good images.
        unaltered: (images, tests) of the files as they are.
        gains: (gains, images, tests) of good images by light, see `GAINS`.
        looks: (images, tests) of good images by another look.
        defects: (defective images, tests); may be of none.
    """

    still: Array
    unaltered: Array
    gains: Array
    looks: dict[Look, Array]
    defects: Array


def seen(image: NDArray[np.uint8], look: Look, random: np.random.Generator) -> NDArray[np.uint8]:
    """Return an image uint8 (H,W,1) or (H,W,3) as a camera would see it another time."""
    tints = np.array([-1, 0, 1] if image.shape[2] == RGB else [0])
    pixels = image * (look.gain * random.normal(1, LIGHT)) * (1 + look.tint * tints)
    if look.blur:
        pixels = gaussian_filter(pixels, (look.blur, look.blur, 0), mode="nearest")
    pixels += random.normal(0, NOISE, image.shape)
    return np.rint(pixels).clip(0, 255).astype(np.uint8)


def measure_pools(
    detector: Detector,
    good: Sequence[Path],
    bad: Sequence[Path],
    looks: Sequence[Look],
    renditions: int,
    seed: int,
    on_images: Callable[[int], None] = lambda _: None,
) -> Pools:
    """Score every image in every look, once.

    Args:
        detector: whose scores are tested.
        good: images of good parts that the model has not seen in training.
        bad: of defective ones.
        looks: beside those of `GAINS`.
        renditions: undisturbed ones of each good image.
        seed: of the noise.
        on_images: called with the number of images done since the last call.

    Raises:
        DataError: an image cannot be read.
    """
    random = np.random.default_rng(seed)
    wanted = [*[PLAIN] * renditions, *(Look(gain=gain) for gain in GAINS), *looks]
    contract = detector.bundle.manifest.input
    depth, channels = contract.bit_depth, contract.channels
    unaltered, rows, defects = [], [], []
    for path in good:
        image = load_image(path, depth, channels)
        unaltered.append(_values(detector, image))
        rows.append([_values(detector, seen(image, look, random)) for look in wanted])
        on_images(1)
    for path in bad:
        image = seen(load_image(path, depth, channels), PLAIN, random)
        defects.append(_values(detector, image))
        on_images(1)
    table = np.array(rows).swapaxes(0, 1)
    first = renditions + len(GAINS)
    return Pools(
        table[:renditions].reshape(-1, len(TESTS)),
        np.array(unaltered),
        table[renditions:first],
        dict(zip(looks, table[first:], strict=True)),
        np.array(defects).reshape(-1, len(TESTS)),
    )


def _values(detector: Detector, image: NDArray[np.uint8]) -> list[float]:
    result = detector(image)
    if result.verdict == "unaligned":
        raise DataError(
            "got an image that cannot be aligned, which a station does not test, expected aligned "
            "ones; leave it out."
        )
    values = {"score": result.score} | image_statistics(image)
    return [values[name] for name in TESTS]
