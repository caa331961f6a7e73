"""OpenVINO on the processor, in exactly the precisions that the graph asks for."""

from __future__ import annotations

import os

import numpy as np
import openvino as ov
import openvino.properties as props
import openvino.properties.hint as hints
from numpy.typing import NDArray

from stpm.runtime.backends import EngineSource, Outputs
from stpm.runtime.backends.pool import Pool
from stpm.runtime.errors import BackendError


class OpenVinoEngine:
    """A compiled graph with a pool of requests, because one request serves one thread at a time."""

    def __init__(self, model: bytes, threads: int) -> None:
        core = ov.Core()
        self.compiled = core.compile_model(core.read_model(model), "CPU", _properties(threads))
        self._device = str(core.get_property("CPU", props.device.full_name))
        self._requests: Pool[ov.InferRequest] = Pool(self.compiled.create_infer_request)

    def run(self, images: NDArray[np.uint8]) -> Outputs:
        """Score a batch; the outputs are copied out of the request's buffers."""
        with self._requests.one() as request:
            request.set_tensor("images", ov.Tensor(images, shared_memory=True))
            # `infer` would do the same, and make dictionaries of inputs and outputs: 1 % of INT8.
            request.start_async()
            request.wait()
            return (
                np.array(request.get_tensor("anomaly_map").data),
                np.array(request.get_tensor("pred_score").data),
            )

    def built_with(self) -> dict[str, str]:
        """Name the library's version and the device."""
        return {"openvino": ov.__version__.split("-")[0], "device": self._device}

    def layer_precisions(self) -> dict[str, str]:
        """Return the precision that each executed layer computes in, by its names in the graph."""
        layers = {}
        for node in self.compiled.get_runtime_model().get_ordered_ops():
            info = node.get_rt_info()
            names = info["originalLayersNames"].astype(str) if "originalLayersNames" in info else ""
            if names:
                layers[names] = info["runtimePrecision"].astype(str)
        return layers


def _properties(threads: int) -> dict[str, object]:
    properties: dict[str, object] = {
        # Without it OpenVINO computes in bf16 on processors that have it, scores included; with it
        # the types in the graph are obeyed.
        hints.execution_mode: hints.ExecutionMode.ACCURACY,
        hints.performance_mode: hints.PerformanceMode.LATENCY,
    }
    if threads:  # of one run: as many run at once as there are processors for
        streams = max(1, _usable_cores() // threads)
        properties[props.num_streams] = streams
        properties[props.inference_num_threads] = threads * streams
    return properties


def _usable_cores() -> int:
    affinity = getattr(os, "sched_getaffinity", None)  # not on Windows
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def load(source: EngineSource) -> OpenVinoEngine:
    """Compile the graph; BackendError when this OpenVINO cannot."""
    try:
        return OpenVinoEngine(source.model, source.threads)
    except RuntimeError as error:
        raise BackendError(
            f"OpenVINO {ov.__version__} cannot run this graph on the CPU "
            f"({str(error).strip().splitlines()[-1]}); choose another engine or precision."
        ) from error
