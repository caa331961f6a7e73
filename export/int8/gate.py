"""The gate of INT8: offered only where it finds defects as well as FP32 does."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import ceil, sqrt
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stpm.runtime.backends import Outputs
from stpm.runtime.bundle.maps import Maps
from stpm.runtime.errors import DataError, ParityError
from stpm.runtime.images.preprocess import FULL_DEPTH
from stpm.train.datasets import Sample
from stpm.train.evaluate import Scorer, evaluate, missing_kind, scored_batches

LARGEST_LOSS = 0.003
"""Largest loss of image AUROC, pixel AUROC or AUPRO against FP32."""
LARGEST_NOISE = 1.3
"""How many times higher the maps of good images may be in the mean than in FP32."""
GATED = ("image_auroc", "pixel_auroc", "aupro")
"""The metrics that the gate holds."""
MOST_PIXELS = 1 << 26
"""Of all maps that the metrics are computed on; of more, evenly chosen rows and columns."""


class GateError(ParityError):
    """INT8 is worse than FP32 by more than the limits allow.

    Attributes:
        reason: the beginning of the message.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"{reason}; no bundle was written, export with --bf16 or --fp16, or quantise on other "
            "images with --quantize DIR."
        )
        self.reason = reason


@dataclass(frozen=True)
class Gate:
    """What FP32 reaches.

    Attributes:
        good_map: mean of the maps of the good images.
        samples: labelled test images; may be empty.
        bit_depth: of the images; see `load_image`.
        metrics: of `GATED` on them, what there is.
    """

    good_map: float
    samples: Sequence[Sample]
    bit_depth: int
    metrics: dict[str, float]

    @classmethod
    def of(
        cls,
        good: Sequence[Path],
        samples: Sequence[Sample],
        scorer: Scorer,
        *,
        bit_depth: int = FULL_DEPTH,
        on_images: Callable[[int], None] = lambda _: None,
    ) -> Gate:
        """Measure FP32 on good images, and on labelled ones if there are any.

        Args:
            good: the good images.
            samples: the labelled ones; may be empty.
            scorer: FP32.
            bit_depth: see `load_image`.
            on_images: called with the number of images done since the last call.

        Raises:
            DataError: an image or mask cannot be used, or a class is missing.
        """
        if samples and (missing := missing_kind(samples)):
            raise DataError(f"{missing}; the accuracy check of INT8 needs both, add it.")
        batches = scored_batches(scorer, good, on_images, bit_depth, size=1)
        good_map = _mean(anomaly_map for (anomaly_map,), _ in batches)
        metrics = _metrics(scorer, samples, bit_depth, on_images)
        return cls(good_map, samples, bit_depth, metrics)

    def check(self, name: str, good: Maps, scorer: Scorer) -> dict[str, float]:
        """Measure an engine likewise.

        Args:
            name: of the engine.
            good: its maps of the good images.
            scorer: the engine.

        Returns:
            By name: `good_map_ratio` to FP32, and of each metric what is lost.

        Raises:
            GateError: it is worse than the limits allow.
        """
        ratio = _mean(good) / self.good_map
        if not ratio <= LARGEST_NOISE:
            raise GateError(
                f"{name} in INT8 gives maps of good images {ratio:.2f} times as high as "
                f"FP32, expected at most {LARGEST_NOISE}"
            )
        losses = {
            f"{metric}_loss": self.metrics[metric] - found
            for metric, found in _metrics(scorer, self.samples, self.bit_depth).items()
        }
        for metric, loss in losses.items():
            if not loss <= LARGEST_LOSS:
                raise GateError(
                    f"{name} in INT8 loses {loss:.4f} of {metric.removesuffix('_loss')} against "
                    f"FP32, expected at most {LARGEST_LOSS}"
                )
        return {"good_map_ratio": ratio} | losses


def _mean(anomaly_maps: Iterable[NDArray[np.float32]]) -> float:
    return float(np.mean([one.mean(dtype=np.float64) for one in anomaly_maps]))


def _metrics(
    scorer: Scorer,
    samples: Sequence[Sample],
    bit_depth: int,
    on_images: Callable[[int], None] = lambda _: None,
) -> dict[str, float]:
    if not samples:
        return {}

    def thinned(images: Sequence[NDArray[np.uint8]]) -> Outputs:
        anomaly_maps, scores = scorer(images)
        step = ceil(sqrt(len(samples) * anomaly_maps[0].size / MOST_PIXELS))
        return anomaly_maps[:, ::step, ::step].copy(), scores

    overall = evaluate(thinned, samples, on_images, bit_depth).overall
    found = {metric: getattr(overall, metric) for metric in GATED}
    return {metric: value for metric, value in found.items() if value is not None}
