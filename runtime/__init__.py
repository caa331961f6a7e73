"""Run a bundle: `Detector("bottle.stpm")(image)` gives a `Result`. Needs no torch."""

from stpm.runtime.bundle import Bundle
from stpm.runtime.calibration import Calibration
from stpm.runtime.detector import Detector
from stpm.runtime.errors import (
    BackendError,
    BundleError,
    CheckpointError,
    DataError,
    ExportError,
    ParityError,
    StpmError,
)
from stpm.runtime.preprocess import load_image
from stpm.runtime.result import Region, Result

__all__ = [
    "BackendError",
    "Bundle",
    "BundleError",
    "Calibration",
    "CheckpointError",
    "DataError",
    "Detector",
    "ExportError",
    "ParityError",
    "Region",
    "Result",
    "StpmError",
    "load_image",
]
