"""ONNX Runtime's bound inputs and outputs, on the processor where there is no GPU."""

from __future__ import annotations

import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from numpy.typing import NDArray

from stpm.runtime import BackendError
from stpm.runtime.backends import EngineSource, open_engine
from stpm.runtime.backends.onnxruntime_gpu import OnnxRuntimeGpuEngine, load, providers_of


def noise(count: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, 64, 64, 3), np.uint8)


def test_bound_arrays_give_the_same_scores(model: bytes) -> None:
    engine = OnnxRuntimeGpuEngine(model, ["CPUExecutionProvider"], "cpu")
    expected = open_engine("onnxruntime", model)
    batches = [noise(1 + seed % 3, seed) for seed in range(12)]
    kept = [engine.run(batch) for batch in batches]
    with ThreadPoolExecutor(4) as pool:
        parallel = list(pool.map(engine.run, batches))
    for batch, outputs, again in zip(batches, kept, parallel, strict=True):
        for array, other, wanted in zip(outputs, again, expected.run(batch), strict=True):
            np.testing.assert_array_equal(array, wanted)
            np.testing.assert_array_equal(other, wanted)
    gone = weakref.ref(engine)
    del engine
    assert gone() is None


def test_fp32_stays_fp32_on_the_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert dict(providers_of("onnxruntime-cuda"))["CUDAExecutionProvider"]["use_tf32"] == "0"
    first, second = providers_of("onnxruntime-tensorrt")
    assert first[0] == "TensorrtExecutionProvider"
    assert first[1]["trt_engine_cache_path"] == str(tmp_path / "stpm/onnxruntime-tensorrt")
    assert second[0] == "CUDAExecutionProvider"


def test_cuda_is_looked_for_first_and_in_silence(
    model: bytes, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if "CUDAExecutionProvider" in ort.get_available_providers():
        pytest.skip("this ONNX Runtime has it")
    steps: list[str] = []

    class Session:
        def __init__(self, *_: object, **__: object) -> None:
            steps.append("session")
            raise RuntimeError("libcublas.so is missing")

    def preload() -> None:
        steps.append("preload")
        print("Failed to load libcublas.so")

    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(ort, "preload_dlls", preload)
    monkeypatch.setattr(ort, "InferenceSession", Session)
    with pytest.raises(BackendError, match=r"on the GPU \(libcublas.so is missing\)"):
        load(EngineSource("onnxruntime-cuda", model))
    assert steps == ["preload", "session"]
    assert capsys.readouterr().out == ""


def test_a_library_that_is_missing_is_what_is_said(
    model: bytes, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """ONNX Runtime would try again without TensorRT, and say why that cannot be either."""
    said = [
        "/onnxruntime_src/onnxruntime/python/state.cc:729 void ort::Register(Options&, const "
        "Options&) Please install TensorRT libraries.",
        "Conflicting session configuration.",
    ]

    def create(*_: object, **__: object) -> None:
        raise RuntimeError(said.pop(0))

    monkeypatch.setattr(ort, "get_available_providers", lambda: ["TensorrtExecutionProvider"])
    monkeypatch.setattr(ort.InferenceSession, "_create_inference_session", create)
    with pytest.raises(BackendError) as caught:
        load(EngineSource("onnxruntime-tensorrt", model))
    assert str(caught.value) == (
        f"ONNX Runtime {ort.__version__} cannot run this graph on the GPU (Please install TensorRT "
        "libraries.); check that CUDA, cuDNN and TensorRT (libnvinfer) are installed, or choose "
        "another engine."
    )
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("name", ["onnxruntime-cuda", "onnxruntime-tensorrt"])
def test_an_onnxruntime_without_the_provider(name: str, model: bytes) -> None:
    if providers_of(name)[0][0] in ort.get_available_providers():
        pytest.skip("this ONNX Runtime has it")
    with pytest.raises(BackendError, match=r"it has no \w+ExecutionProvider.*stpm\[gpu\]"):
        load(EngineSource(name, model))
