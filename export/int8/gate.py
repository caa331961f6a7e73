"""The gate of INT8: offered only where it finds defects as well as FP32 does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stpm.runtime.bundle.maps import Maps
from stpm.runtime.errors import DataError, ParityError
from stpm.runtime.images.preprocess import FULL_DEPTH
from stpm.train.datasets import Sample
from stpm.train.evaluate import Scorer, evaluate, missing_kind, score_files, torch_scorer
from stpm.train.methods import Network

LARGEST_LOSS = 0.003
"""Largest loss of image AUROC, pixel AUROC or AUPRO against FP32."""
LARGEST_NOISE = 1.3
"""How many times higher the maps of good images may be in the mean than in FP32."""
GATED = ("image_auroc", "pixel_auroc", "aupro")
"""The metrics that the gate holds."""


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
        model: Network,
        good: Sequence[Path],
        samples: Sequence[Sample],
        bit_depth: int = FULL_DEPTH,
    ) -> Gate:
        """Measure the FP32 model on good images, and on labelled ones if there are any.

        Raises:
            DataError: an image or mask cannot be used, or a class is missing.
        """
        scorer = torch_scorer(model)
        if samples and (missing := missing_kind(samples)):
            raise DataError(f"{missing}; the accuracy check of INT8 needs both, add it.")
        anomaly_maps, _ = score_files(scorer, good, bit_depth=bit_depth)
        metrics = _metrics(scorer, samples, bit_depth)
        return cls(float(anomaly_maps.mean()), samples, bit_depth, metrics)

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
        ratio = float(np.mean([one.mean(dtype=np.float64) for one in good])) / self.good_map
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


def _metrics(scorer: Scorer, samples: Sequence[Sample], bit_depth: int) -> dict[str, float]:
    if not samples:
        return {}
    overall = evaluate(scorer, samples, bit_depth=bit_depth).overall
    found = {metric: getattr(overall, metric) for metric in GATED}
    return {metric: value for metric, value in found.items() if value is not None}
