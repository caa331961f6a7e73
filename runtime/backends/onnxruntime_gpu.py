"""ONNX Runtime on the GPU: its CUDA and its TensorRT provider, with inputs and outputs bound."""

from __future__ import annotations

import io
import re
from contextlib import redirect_stdout
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from stpm.runtime.backends import EngineSource, Outputs
from stpm.runtime.backends.cache import cache_folder
from stpm.runtime.backends.onnxruntime_cpu import ERRORS_ONLY
from stpm.runtime.backends.pool import Pool
from stpm.runtime.errors import BackendError

OUTPUTS = ("anomaly_map", "pred_score")
LIBRARIES = {
    "onnxruntime-cuda": "CUDA and cuDNN",
    "onnxruntime-tensorrt": "CUDA, cuDNN and TensorRT (libnvinfer)",
}
"""What the provider of an engine loads."""


class OnnxRuntimeGpuEngine:
    """A session with a pool of bindings, because the arrays of one serve one thread at a time."""

    def __init__(self, model: bytes, providers: list[Any], device: str) -> None:
        options = ort.SessionOptions()
        options.log_severity_level = ERRORS_ONLY
        # All work is the GPU's: waiting threads, one a core, would only take time from the caller.
        options.intra_op_num_threads = 1
        # What the GPU has no kernel for is an error, not a detour over the processor.
        if device != "cpu":
            options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        # Nor a second try without the provider, whose failure would hide the reason of the first.
        session = ort.InferenceSession(model, options, providers=providers, enable_fallback=False)
        self._session = session
        self._bindings = Pool(lambda: _Binding(session, device))

    def run(self, images: NDArray[np.uint8]) -> Outputs:
        """Score a batch; the outputs are copied from the GPU into fresh arrays."""
        with self._bindings.one() as binding:
            return binding.run(images)

    def layer_precisions(self) -> dict[str, str]:
        """ONNX Runtime computes in the graph's types and reports none."""
        return {}

    def built_with(self) -> dict[str, str]:
        """Name the library's version and the device."""
        return {"onnxruntime": ort.__version__, "device": self._session.get_providers()[0]}


class _Binding:
    """Arrays on the device by batch size, bound to one session."""

    def __init__(self, session: ort.InferenceSession, device: str) -> None:
        self._session = session
        self._device = device
        self._bound: dict[tuple[int, ...], tuple[Any, Any, list[Any]]] = {}

    def run(self, images: NDArray[np.uint8]) -> Outputs:
        if images.shape not in self._bound:
            self._bound[images.shape] = self._bind(images.shape)
        binding, pixels, outputs = self._bound[images.shape]
        pixels.update_inplace(images)
        self._session.run_with_iobinding(binding)
        # On the processor `numpy` gives a view of memory that the next run overwrites.
        maps, scores = (np.array(output.numpy()) for output in outputs)
        return maps, scores

    def _bind(self, shape: tuple[int, ...]) -> tuple[Any, Any, list[Any]]:
        binding = self._session.io_binding()
        pixels = ort.OrtValue.ortvalue_from_shape_and_type(shape, np.uint8, self._device, 0)
        binding.bind_ortvalue_input("images", pixels)
        sides = {value.name: value.shape[1:] for value in self._session.get_outputs()}
        outputs = [
            ort.OrtValue.ortvalue_from_shape_and_type(
                (shape[0], *sides[name]), np.float32, self._device, 0
            )
            for name in OUTPUTS
        ]
        for name, output in zip(OUTPUTS, outputs, strict=True):
            binding.bind_ortvalue_output(name, output)
        return binding, pixels, outputs


def providers_of(name: str) -> list[Any]:
    """Return the provider of an engine and its options.

    Args:
        name: "onnxruntime-cuda" or "onnxruntime-tensorrt".
    """
    # TF32 is on by default; it would round the factors of every FP32 product to 10 bits.
    cuda = ("CUDAExecutionProvider", {"use_tf32": "0"})
    if name == "onnxruntime-cuda":
        return [cuda]
    folder = cache_folder() / "onnxruntime-tensorrt"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    caches = {
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(folder),
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": str(folder),
    }
    return [("TensorrtExecutionProvider", caches), cuda]


def load(source: EngineSource) -> OnnxRuntimeGpuEngine:
    """Open the graph on the GPU; BackendError when this ONNX Runtime cannot."""
    providers = providers_of(source.name)
    wanted = providers[0][0]
    refusal = f"ONNX Runtime {ort.__version__} cannot run this graph on the GPU"
    if wanted not in ort.get_available_providers():
        raise BackendError(f"{refusal} (it has no {wanted}); run pip install 'stpm[gpu]'.")
    # CUDA and cuDNN as pip installs them lie where the provider does not look. What is not found is
    # printed there; what is missing is said by the session.
    with redirect_stdout(io.StringIO()):
        ort.preload_dlls()
    try:
        engine = OnnxRuntimeGpuEngine(source.model, providers, "cuda")
    except Exception as error:
        # Its exceptions share no base class but Exception.
        raise BackendError(
            f"{refusal} ({_reason(error)}); check that {LIBRARIES[source.name]} are installed, or "
            "choose another engine."
        ) from error
    device = engine.built_with()["device"]
    if device != wanted:
        raise BackendError(
            f"{refusal} (it fell back from {wanted} to {device}); check that "
            f"{LIBRARIES[source.name]} are installed."
        )
    return engine


def _reason(error: Exception) -> str:
    """Return what the library says, without the place in its sources and a long signature."""
    return re.sub(r"^/onnxruntime_src/\S+ .*?\) (?=[A-Z])", "", str(error).splitlines()[0])
