"""ONNX Runtime on the processor: the engine that is always installed."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from stpm.runtime.backends import EngineSource, Outputs
from stpm.runtime.errors import BackendError

ERRORS_ONLY = 3
"""Severity: the runtime's warnings name nodes of the graph and help nobody here."""


class OnnxRuntimeEngine:
    """A session; ONNX Runtime lets many threads run one."""

    def __init__(self, model: bytes, threads: int) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = ERRORS_ONLY
        self._session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def run(self, images: NDArray[np.uint8]) -> Outputs:
        """Score a batch; the outputs are fresh arrays."""
        anomaly_maps, pred_scores = self._session.run(
            ["anomaly_map", "pred_score"], {"images": images}
        )
        return anomaly_maps, pred_scores

    def layer_precisions(self) -> dict[str, str]:
        """ONNX Runtime computes in the graph's types and reports none."""
        return {}

    def built_with(self) -> dict[str, str]:
        """Name the library's version and the device."""
        return {"onnxruntime": ort.__version__, "device": "CPU"}


def load(source: EngineSource) -> OnnxRuntimeEngine:
    """Open the graph; BackendError when this ONNX Runtime has no kernel for a node of it."""
    try:
        return OnnxRuntimeEngine(source.model, source.threads)
    except Exception as error:
        # Its exceptions share no base class but Exception.
        raise BackendError(
            f"ONNX Runtime {ort.__version__} cannot run this graph on the CPU "
            f"({str(error).splitlines()[0]}); choose another engine or precision."
        ) from error
