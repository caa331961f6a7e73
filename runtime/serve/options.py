"""How a bundle is served, and what is needed for it."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from enum import StrEnum

from stpm.runtime.bundle.archive import Bundle
from stpm.runtime.errors import BackendError


class TritonBackend(StrEnum):
    """What runs the model inside Triton."""

    ONNXRUNTIME = "onnxruntime"
    PYTHON = "python"
    TENSORRT = "tensorrt"


ONNX_ENGINES = ("onnxruntime", "onnxruntime-cuda")
"""Engines whose thresholds fit what Triton's ONNX Runtime backend runs; the first by default."""

PLAN_ENGINE = "tensorrt"
"""The engine whose file Triton's TensorRT backend loads; one of TensorRT-RTX it does not."""

BUNDLE = "bundle.stpm"
"""The bundle's folder beside the launcher of the Python backend."""


@dataclass(frozen=True)
class TritonOptions:
    """How Triton serves a model.

    Attributes:
        backend: what runs it.
        engine: whose thresholds it has, and in the Python backend, which runs; None there leaves
            the choice to the server's machine.
        instances: copies of the model that run at once.
        max_queue: requests that may wait; a further one is refused at once.
        queue_delay_us: microseconds that a request waits for others to form a batch with.
        timeout_ms: after so long in the queue a request is refused; 0 lets it wait.
    """

    backend: TritonBackend = TritonBackend.ONNXRUNTIME
    engine: str | None = None
    instances: int = 1
    max_queue: int = 64
    queue_delay_us: int = 500
    timeout_ms: int = 0


def model_name(bundle: Bundle) -> str:
    """Return what a served bundle is called by default: as its folder."""
    return bundle.path.absolute().name.removesuffix(".stpm")


def check_graph_scores(bundle: Bundle) -> None:
    """Refuse to serve the graph alone where its own scores are not the bundle's.

    Raises:
        BackendError: the bundle has regions of interest, a smallest defect that counts, or a
            reference that parts are aligned to.
    """
    check_whole(bundle)
    if not bundle.manifest.scoring.is_graphs:
        raise BackendError(
            f"{bundle.path}: has regions of interest, a smallest defect or parts to align, which "
            "its graph does not include; serve it with stpm-serve triton --backend python."
        )


def check_whole(bundle: Bundle) -> None:
    """Refuse to serve a bundle whose images are cut into tiles.

    Raises:
        BackendError: it is such a bundle: its graph gives no map of an image.
    """
    if bundle.manifest.tiles is not None:
        raise BackendError(
            f"{bundle.path}: cuts its images into tiles, expected a bundle whose graph takes "
            "whole images; score large images with stpm-run, stpm-live or Detector."
        )


def check_extra(*modules: str, extra: str = "serve") -> None:
    """Refuse to go on without the packages of an extra.

    Raises:
        BackendError: one of these top-level modules is not installed.
    """
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        raise BackendError(
            f"this needs {', '.join(missing)}, which is not installed; run pip install "
            f"'stpm[{extra}]'."
        )
