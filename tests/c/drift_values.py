"""What libstpm's drift test and image statistics are compared with, as Python computes it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from noise import image, row_bytes

from stpm.runtime.bundle.image_statistics import image_statistics
from stpm.runtime.images.preprocess import load_image
from stpm.runtime.live.drift import DriftMonitor


def write_drift(out: Path) -> None:
    """Values with ties and a change, images of every format, and what Python makes of them."""
    draw = np.random.default_rng(11)
    with (out / "drift.txt").open("w") as index:
        for count, level in ((0, 0.5), (7, 1e-2), (300, 1e-3), (200, 1e-3)):
            reference = np.round(draw.gamma(2, size=count), 1).tolist()
            values = np.round(draw.gamma(2, size=400), 1)
            # Three times as much, or as far from the middle.
            values[300:] = 3 * values[300:] - (4 if count == 200 else 0)
            monitor = DriftMonitor(reference, level)
            index.write(f"{level!r} {count} {len(values)} {' '.join(map(repr, reference))}\n")
            for value in values.tolist():
                state = monitor.update(value)
                index.write(f"{value!r} {state.log10_evidence!r} {int(state.alarm)}\n")
    with (out / "statistics.txt").open("w") as index:
        for seed, form in enumerate(range(5)):  # of 8 bits
            for height, width in ((1, 1), (3, 5), (300, 40), (700, 9)):
                stride = row_bytes(form, width) + seed
                values = image_statistics(load_image(image(form, height, width, stride, seed)))
                numbers = " ".join(map(repr, values.values()))
                index.write(f"{form} {height} {width} {stride} {seed} {numbers}\n")
