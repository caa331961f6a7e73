"""What every server answers with: the names, types and shapes of a served model's outputs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stpm.runtime.bundle.calibration import Calibration
from stpm.runtime.output.result import Result

IMAGES = "images"
"""The input: uint8 (N,H,W,3) in RGB, (N,H,W,1) of a bundle for grey."""
ANOMALY_MAP = "anomaly_map"
"""float32 (N,h,w)."""
PER_IMAGE: dict[str, type[np.generic]] = {
    "pred_score": np.float32,
    "threshold": np.float32,
    "pixel_threshold": np.float32,
    "is_anomalous": np.bool_,
    "is_warned": np.bool_,
}
"""The other outputs, (N,1) each."""
_VALUES: dict[str, Callable[[Result], Any]] = {
    "pred_score": lambda result: result.score,
    "threshold": lambda result: served_threshold(result.threshold),
    "pixel_threshold": lambda result: served_threshold(result.pixel_threshold),
    "is_anomalous": lambda result: result.is_anomalous,
    "is_warned": lambda result: result.verdict == "warn",
}


def served_threshold(threshold: float) -> np.float32:
    """Round a threshold down to float32: the same scores of float32 are above it."""
    rounded = np.float32(threshold)
    # As Python's numbers: NumPy would compare them in float32.
    return rounded if float(rounded) <= threshold else np.nextafter(rounded, np.float32(-np.inf))


def served_warning(calibration: Calibration) -> np.float32:
    """Return the limit above which a score is not ok: the threshold where there is no other."""
    limit = calibration.warn_threshold
    return served_threshold(calibration.image_threshold if limit is None else limit)


def answers(results: Sequence[Result], wanted: Collection[str]) -> dict[str, NDArray[Any]]:
    """Return the wanted outputs for results whose maps are of one size."""
    arrays: dict[str, NDArray[Any]] = {
        name: np.array([[_VALUES[name](result)] for result in results], dtype)
        for name, dtype in PER_IMAGE.items()
        if name in wanted
    }
    if ANOMALY_MAP in wanted:
        arrays[ANOMALY_MAP] = np.stack([result.anomaly_map for result in results])
    return arrays
