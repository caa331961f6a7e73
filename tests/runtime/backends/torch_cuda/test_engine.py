"""The engine on a real GPU, and what a machine without one says and exports."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stpm.export.options import ExportOptions
from stpm.export.pipeline import export_bundle
from stpm.runtime import BackendError, Bundle, DataError, Detector
from stpm.runtime.backends.gpu import gpu_count
from stpm.runtime.backends.torch_cuda import TorchCudaEngine
from stpm.train.checkpoint import load_checkpoint

needs_gpu = pytest.mark.skipif(not gpu_count(), reason="there is no NVIDIA GPU")
BATCH = (1, 8)


@pytest.fixture(scope="module")
def bundle(checkpoint_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The tiny run in FP16, for torch-cuda and ONNX Runtime."""
    out = tmp_path_factory.mktemp("cuda") / "weave.stpm"
    checkpoint = load_checkpoint(checkpoint_path)
    held_out = checkpoint.held_out_images()
    engines = ("torch-cuda", "onnxruntime")
    options = ExportOptions(precision="fp16", batch=BATCH, engines=engines)
    lines: list[str] = []
    export_bundle(
        checkpoint, out, options, verify=held_out, calibration=held_out, report=lines.append
    )
    return Bundle(out)


@pytest.fixture(scope="module")
def engine(bundle: Bundle) -> TorchCudaEngine:
    return TorchCudaEngine(bundle.read("model.onnx"), BATCH)


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    return np.random.default_rng(4).integers(0, 256, (150, 64, 64, 3), np.uint8)


@pytest.mark.skipif(gpu_count() > 0, reason="with a GPU the engine is verified")
def test_a_bundle_names_it_where_there_is_no_gpu(bundle: Bundle) -> None:
    record = bundle.manifest.engines["torch-cuda"]
    assert (record.verified, record.file, record.parity) == (False, None, {})
    assert record.calibration.image_threshold > 0
    with pytest.raises(BackendError, match="torch-cuda needs an NVIDIA GPU"):
        Detector(bundle, "torch-cuda")
    assert Detector(bundle).engine_name == "onnxruntime"


@needs_gpu
@pytest.mark.parametrize("count", range(1, 10))
def test_every_batch_size_scores_like_onnx_runtime(
    bundle: Bundle, engine: TorchCudaEngine, frames: np.ndarray, count: int
) -> None:
    expected = Detector(bundle, "onnxruntime").infer(frames[:count])
    for made, wished in zip(engine.run(frames[:count]), expected, strict=True):
        np.testing.assert_allclose(made, wished, atol=1e-2 * wished.max())


@needs_gpu
def test_batches_in_flight_keep_their_order(engine: TorchCudaEngine, frames: np.ndarray) -> None:
    maps, scores = engine.run(frames)
    np.testing.assert_array_equal(maps.max(axis=(1, 2)), scores)
    np.testing.assert_array_equal(engine.run_scores(frames), scores)
    backwards = engine.run(np.ascontiguousarray(frames[::-1]))[1][::-1]
    np.testing.assert_allclose(backwards, scores, rtol=1e-2)


@needs_gpu
def test_arrays_on_the_gpu(engine: TorchCudaEngine, frames: np.ndarray) -> None:
    on_gpu = torch.from_numpy(frames[:3]).cuda()
    maps, scores = engine.run_on_device(on_gpu)
    assert maps.is_cuda
    np.testing.assert_allclose(scores.cpu(), engine.run(frames[:3])[1], rtol=1e-2)
    out = torch.empty(3, 64, 64, device="cuda"), torch.empty(3, device="cuda")
    assert engine.run_on_device(on_gpu, out) is out
    assert torch.equal(out[0], maps)
    wrong: list[Any] = [torch.from_numpy(frames[:3]), on_gpu.float(), on_gpu[:, :9], frames[:1]]
    for images in wrong:
        with pytest.raises(DataError):
            engine.run_on_device(images)
    with pytest.raises(DataError, match="with N up to 8"):
        engine.run_on_device(torch.from_numpy(frames[:9]).cuda())


@needs_gpu
def test_many_threads(engine: TorchCudaEngine, frames: np.ndarray) -> None:
    expected = engine.run(frames[:8])[1]
    found: list[np.ndarray] = []

    def work() -> None:
        found.extend(engine.run(frames[:8])[1] for _ in range(20))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 80
    for scores in found:
        np.testing.assert_allclose(scores, expected, rtol=1e-2)


@needs_gpu
def test_without_a_compiler_it_runs_slower_and_says_so(
    bundle: Bundle, frames: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stpm.runtime.backends.torch_cuda import kernels

    def broken(_: torch.device) -> None:
        raise RuntimeError("Failed to find C compiler")

    monkeypatch.setattr(kernels, "try_out", broken)
    with pytest.warns(RuntimeWarning, match="slower .Failed to find C compiler"):
        engine = TorchCudaEngine(bundle.read("model.onnx"), BATCH)
    assert engine.built_with()["kernels"] == "torch"
    expected = Detector(bundle, "onnxruntime").infer(frames[:5])
    np.testing.assert_allclose(engine.run(frames[:5])[1], expected[1], rtol=1e-2)


@needs_gpu
def test_a_detector_opens_it(bundle: Bundle, frames: np.ndarray, tmp_path: Path) -> None:
    moved = shutil.copytree(bundle.path, tmp_path / "moved.stpm")
    detector = Detector(moved, "torch-cuda")
    scores = detector.scores(list(frames[:9]))
    assert scores.tolist() == [result.score for result in detector.batch(list(frames[:9]))]
