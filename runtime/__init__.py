"""Run a bundle: `Detector("bottle.stpm")(image)` gives a `Result`. Needs no torch."""

from stpm.runtime.bundle.archive import Bundle
from stpm.runtime.bundle.calibration import Calibration
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
from stpm.runtime.images.preprocess import load_image
from stpm.runtime.output.result import Region, Result

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
