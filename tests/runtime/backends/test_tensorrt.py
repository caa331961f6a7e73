"""The TensorRT engine: on a GPU made of host memory, and whether it may load what it is given."""

from __future__ import annotations

import ctypes
import gc
import hashlib
import importlib.util
import sys
import threading
import weakref
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from stpm.runtime import BackendError, Bundle, DataError, Detector, ParityError
from stpm.runtime import backends as backends_module
from stpm.runtime.backends import BuiltEngine, gpu, open_engine
from stpm.runtime.backends.cache import cache_folder
from stpm.runtime.bundle.archive import GOLDEN, MODEL, EngineRecord, write_bundle

cuda = pytest.importorskip("stpm.runtime.backends.cuda", reason="cuda-python is not installed")
tensorrt = pytest.importorskip("stpm.runtime.backends.tensorrt.engine")
library_module = pytest.importorskip("stpm.runtime.backends.tensorrt.library")
HERE = Path(__file__).parent
DEVICE = "Fake GPU, sm89"


def _fakes() -> Any:
    spec = importlib.util.spec_from_file_location("fake_gpu", HERE / "fake_gpu.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["fake_gpu"] = module
    spec.loader.exec_module(module)
    return module


fakes = _fakes()


@pytest.fixture
def gpu_calls(monkeypatch: pytest.MonkeyPatch) -> Any:
    fake = fakes.FakeCuda()
    monkeypatch.setattr(cuda, "cudart", fake)
    monkeypatch.setattr(cuda, "StridedMemoryView", fakes.FakeView)
    monkeypatch.setattr(gpu, "_driver_gpus", lambda: [(8, 9)])
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return fake


@pytest.fixture
def library(gpu_calls: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """TensorRT on that GPU, with a cache folder of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    found = library_module.Library(
        "tensorrt", fakes.FakeTensorRt(gpu_calls), None, deque(), threading.Lock()
    )
    monkeypatch.setattr(tensorrt, "load_library", lambda _: found)
    installed = backends_module.is_installed
    monkeypatch.setattr(
        backends_module,
        "is_installed",
        lambda spec: spec.library == "tensorrt" or installed(spec),
    )
    return found


@pytest.fixture
def built(model: bytes) -> BuiltEngine:
    """An engine that fits library, device and graph."""
    sha256 = hashlib.sha256(model).hexdigest()
    made = {"tensorrt": "10.13.0", "device": DEVICE, "model_sha256": sha256}
    return BuiltEngine(model, made, {"teacher/node_conv": "f32"})


@pytest.fixture
def engine(library: Any, model: bytes, built: BuiltEngine) -> Any:
    return open_engine("tensorrt", model, batch=(1, 4), built=built)


def noise(count: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, 64, 64, 3), np.uint8)


@pytest.fixture(scope="module")
def expected(model: bytes) -> Any:
    return open_engine("onnxruntime", model)


def test_scores_of_every_batch_size(engine: Any, expected: Any) -> None:
    for seed, count in enumerate([1, 4, 3, 1, 4, 2, 1]):
        images = noise(count, seed)
        maps, scores = engine.run(images)
        np.testing.assert_array_equal(maps, expected.run(images)[0])
        np.testing.assert_array_equal(scores, expected.run(images)[1])
    assert engine.built_with() == {"tensorrt": "10.13.0", "device": DEVICE}
    assert engine.layer_precisions() == {"teacher/node_conv": "f32"}


def test_after_warm_up_nothing_is_allocated_or_enqueued_one_by_one(
    engine: Any, gpu_calls: Any, library: Any
) -> None:
    engine.run(noise(2))
    before = dict(gpu_calls.calls)
    for seed in range(5):
        engine.run(noise(2, seed))
    after = dict(gpu_calls.calls)
    changed = {name: after[name] - before.get(name, 0) for name in after}
    assert {name: count for name, count in changed.items() if count} == {
        "launch": 5,
        "synchronize": 5,
    }
    assert len(library.api.contexts) == 1


def test_later_runs_leave_earlier_outputs_alone(engine: Any) -> None:
    kept = engine.run(noise(2))
    copies = [array.copy() for array in kept]
    engine.run(noise(2, 1))
    for array, copy in zip(kept, copies, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_threads_have_contexts_of_their_own(engine: Any, expected: Any, library: Any) -> None:
    batches = [noise(1 + seed % 4, seed) for seed in range(24)]
    with ThreadPoolExecutor(4) as pool:
        parallel = list(pool.map(engine.run, batches))
    for batch, (maps, _) in zip(batches, parallel, strict=True):
        np.testing.assert_array_equal(maps, expected.run(batch)[0])
    assert 1 <= len(library.api.contexts) <= 4


def test_all_memory_is_given_back(
    library: Any, model: bytes, built: BuiltEngine, gpu_calls: Any
) -> None:
    engine = open_engine("tensorrt", model, batch=(1, 4), built=built)
    engine.run(noise(3))
    assert gpu_calls.live
    gone = weakref.ref(engine)
    del engine
    assert gone() is None
    gc.collect()
    assert gpu_calls.live == {}


def test_arrays_on_the_gpu_are_scored_without_a_copy(
    engine: Any, expected: Any, gpu_calls: Any, library: Any
) -> None:
    images = cuda.DeviceArray((3, 64, 64, 3), np.uint8)
    out = (cuda.DeviceArray((3, 64, 64), np.float32), cuda.DeviceArray((3,), np.float32))
    for seed in range(4):
        pixels = noise(3, seed)
        ctypes.memmove(images.address, pixels.ctypes.data, pixels.nbytes)
        results = engine.run_on_device(images, out)
        assert results == out
        for result, wanted in zip(results, expected.run(pixels), strict=True):
            np.testing.assert_array_equal(on_host(result), wanted)
    assert gpu_calls.calls["copy"] == 0
    # The first is scored directly, the second recorded, the others replayed.
    assert gpu_calls.calls["launch"] == 3
    maps, scores = engine.run_on_device(images)
    np.testing.assert_array_equal(on_host(maps), expected.run(noise(3, 3))[0])
    assert maps.address != out[0].address
    assert scores.__cuda_array_interface__["shape"] == (3,)


def on_host(array: Any) -> NDArray[np.float32]:
    memory = (ctypes.c_float * (array.size_bytes // 4)).from_address(array.address)
    return np.frombuffer(memory, np.float32).reshape(array.shape).copy()


def test_arrays_that_do_not_fit(engine: Any) -> None:
    with pytest.raises(DataError, match=r"got images of shape \(1, 60, 64, 3\), expected up to 4"):
        engine.run(np.zeros((1, 60, 64, 3), np.uint8))
    with pytest.raises(DataError, match="expected up to 4"):
        engine.run(noise(5))
    images = cuda.DeviceArray((1, 64, 64, 3), np.uint8)
    with pytest.raises(DataError, match="got an array of float32 on the GPU, contiguous, expected"):
        engine.run_on_device(cuda.DeviceArray((1, 64, 64, 3), np.float32))
    short = (cuda.DeviceArray((1, 64, 64), np.float32), cuda.DeviceArray((2,), np.float32))
    with pytest.raises(DataError, match="got outputs of shapes"):
        engine.run_on_device(images, short)
    engine.run(noise(1))


def test_arrays_on_the_host_are_no_arrays_on_the_gpu() -> None:
    with pytest.raises(DataError, match="got an array of uint8 on the host, contiguous, expected"):
        cuda.device_view(noise(1), np.uint8)
    with pytest.raises(DataError, match="got list, expected an array on the GPU"):
        cuda.device_view([1], np.uint8)


def test_an_old_driver_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "cudart", fakes.FakeCuda())
    with pytest.raises(BackendError, match=r"too old for CUDA 13\.2; install a newer driver"):
        cuda.check((fakes.Status.cudaErrorInsufficientDriver,))
    with pytest.raises(BackendError, match=r"CUDA failed \(cudaErrorMemoryAllocation"):
        cuda.check((fakes.Status.cudaErrorMemoryAllocation, None))


MISFITS = {
    "missing or differs from the manifest's hash": {"content": None},
    "built from another graph": {"model_sha256": "0" * 64},
    "built with version 10.9.0, here is TensorRT 10.13.0": {"tensorrt": "10.9.0"},
    "built for NVIDIA T4, sm75, here is Fake GPU, sm89": {"device": "NVIDIA T4, sm75"},
}


@pytest.mark.parametrize("problem", MISFITS)
def test_an_engine_that_does_not_fit_is_built_again(
    problem: str,
    library: Any,
    model: bytes,
    built: BuiltEngine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    changes = dict(MISFITS[problem])
    content = changes.pop("content", b"foreign")
    foreign = BuiltEngine(content, {**built.built_with, "workspace_mb": "7", **changes})
    with pytest.raises(BackendError, match=rf"{problem}.*--no-rebuild"):
        open_engine("tensorrt", model, built=foreign, rebuild=False)
    assert library.api.deserialized == []

    asked = []

    def build(_: Any, onnx: bytes, batch: Any, options: Any, device: str) -> BuiltEngine:
        asked.append((onnx, batch, options.workspace_mb, device))
        return built

    monkeypatch.setattr(tensorrt, "engine_from_onnx", build)
    for _ in range(2):
        open_engine("tensorrt", model, batch=(1, 4), built=foreign).run(noise(1))
    assert asked == [(model, (1, 4), 7, DEVICE)]
    assert library.api.deserialized == [model, model]

    # What others may have written is not loaded.
    for file in cache_folder().iterdir():
        file.chmod(0o666)
    open_engine("tensorrt", model, batch=(1, 4), built=foreign)
    assert len(asked) == 2


def test_an_engine_that_cannot_be_loaded(library: Any, model: bytes, built: BuiltEngine) -> None:
    library.errors.append("The engine plan file\nis not compatible")
    with pytest.raises(BackendError, match=r"cannot load the engine \(The engine plan file is not"):
        open_engine("tensorrt", model, built=replace(built, content=b""))


@pytest.fixture
def gpu_bundle(bundle_path: Path, built: BuiltEngine, tmp_path: Path) -> Path:
    """The tiny bundle with an engine that was built where there was no GPU."""
    bundle = Bundle(bundle_path)
    reference = bundle.manifest.engines["onnxruntime"]
    record = EngineRecord(
        reference.calibration, {}, built.built_with, verified=False, file="tensorrt.engine"
    )
    out = tmp_path / "weave.stpm"
    files = {name: bundle.read(name) for name in (MODEL, GOLDEN)}
    assert built.content is not None
    engines = {"tensorrt": record, "onnxruntime": reference}
    manifest = replace(bundle.manifest, engines=engines)
    write_bundle(out, manifest, files | {"tensorrt.engine": built.content})
    return out


def test_the_detector_takes_the_gpu_where_there_is_one(
    gpu_bundle: Path, library: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Bundle(gpu_bundle).manifest.engines["tensorrt"].verified is False
    detector = Detector(gpu_bundle)
    assert detector.engine_name == "tensorrt"
    image = noise(1)[0]
    assert detector(image).score == Detector(gpu_bundle, "onnxruntime")(image).score
    monkeypatch.setattr(gpu, "_driver_gpus", list)
    assert Detector(gpu_bundle).engine_name != "tensorrt"
    with pytest.raises(BackendError, match="tensorrt needs an NVIDIA GPU, and none was found"):
        Detector(gpu_bundle, "tensorrt")


def test_an_altered_engine_is_never_deserialised(
    gpu_bundle: Path, library: Any, model: bytes, built: BuiltEngine
) -> None:
    (gpu_bundle / "tensorrt.engine").write_bytes(model[:-1] + b"?")
    with pytest.raises(BackendError, match="differs from the manifest's hash"):
        Detector(gpu_bundle, "tensorrt", rebuild=False)
    assert library.api.deserialized == []


def test_an_engine_that_differs_from_the_golden_images_is_refused(
    gpu_bundle: Path, library: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute = fakes.FakeContext._execute

    def wrong(self: Any, addresses: dict[str, int], shape: tuple[int, ...]) -> None:
        execute(self, addresses, shape)
        score = ctypes.c_float.from_address(addresses["pred_score"])
        score.value *= 1.01

    monkeypatch.setattr(fakes.FakeContext, "_execute", wrong)
    with pytest.raises(ParityError, match="tensorrt differs from the golden maps"):
        Detector(gpu_bundle, "tensorrt")


def test_scoring_on_the_device_through_the_detector(
    gpu_bundle: Path, library: Any, expected: Any
) -> None:
    images, pixels = cuda.DeviceArray((2, 64, 64, 3), np.uint8), noise(2)
    ctypes.memmove(images.address, pixels.ctypes.data, pixels.nbytes)
    _, scores = Detector(gpu_bundle, "tensorrt").score_on_device(images)
    np.testing.assert_array_equal(on_host(scores), expected.run(pixels)[1])
    with pytest.raises(BackendError, match="onnxruntime does not accept arrays on the GPU"):
        Detector(gpu_bundle, "onnxruntime").score_on_device(images)


class TimingConfig:
    """Takes timings as TensorRT does: None for damaged ones, False for those of another GPU."""

    def __init__(self) -> None:
        self.timings: bytes | None = None

    def create_timing_cache(self, content: bytes) -> bytes | None:
        return None if content == b"damaged" else content

    def set_timing_cache(self, timings: bytes, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        if timings == b"of another GPU":
            return False
        self.timings = timings
        return True

    def get_timing_cache(self) -> Any:
        if self.timings is None:
            return None
        return SimpleNamespace(serialize=lambda: bytearray(self.timings + b" and new"))


@pytest.mark.parametrize(
    ("kept", "expected"),
    [
        (None, b" and new"),
        (b"old", b"old and new"),
        (b"damaged", b" and new"),
        (b"of another GPU", b" and new"),
    ],
)
def test_timings_that_fit_are_used_and_kept(
    library: Any, kept: bytes | None, expected: bytes
) -> None:
    config = TimingConfig()
    library.use_timings(config, kept)
    assert library.timings(config) == expected
    assert replace(library, name="tensorrt-rtx").timings(config) is None


def test_without_a_gpu_the_library_cannot_start(library: Any) -> None:
    def Builder(_: Any) -> None:  # noqa: N802, the library's name
        raise TypeError("pybind11::init(): factory function returned nullptr")

    library.errors.append("CUDA initialization failure with error: 35")
    without = replace(library, api=SimpleNamespace(Builder=Builder, __version__="10.13.0"))
    match = r"10\.13\.0 cannot start \(CUDA initialization .* 35\); it needs an NVIDIA GPU"
    with pytest.raises(BackendError, match=match):
        without.create("Builder")


@pytest.mark.skipif(not gpu.gpu_count(), reason="there is no GPU")
def test_pycuda_arrays_are_seen_where_they_lie() -> None:
    pytest.importorskip("pycuda", reason="pycuda is not installed")
    import pycuda.autoprimaryctx  # noqa: F401, it makes the context that CUDA's runtime shares
    from pycuda import gpuarray

    pixels = noise(2)
    array = gpuarray.to_gpu(pixels)
    view = cuda.device_view(array, np.uint8)
    assert (view.address, view.shape) == (int(array.gpudata), pixels.shape)
