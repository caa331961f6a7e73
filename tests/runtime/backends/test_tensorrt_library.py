"""TensorRT and TensorRT-RTX as they are installed: found, and building what fits the GPU."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from stpm.runtime import BackendError
from stpm.runtime.backends import EngineSource, gpu

tensorrt = pytest.importorskip("stpm.runtime.backends.tensorrt.engine")
library_module = pytest.importorskip("stpm.runtime.backends.tensorrt.library")


def test_a_library_that_is_missing_or_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    load = library_module.load_library.__wrapped__
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(BackendError, match=r"run pip install 'stpm\[tensorrt\]'"):
        load("tensorrt")
    old = type(sys)("tensorrt")
    old.__version__ = "8.6.1"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tensorrt", old)
    with pytest.raises(BackendError, match=r"got TensorRT 8\.6\.1, expected 10 or newer"):
        load("tensorrt")


def test_rtx_builds_again_what_cannot_run_here_and_keeps_it(
    model: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    library = library_module.load_library("tensorrt-rtx")
    built = tensorrt.engine_from_onnx(library, model, (1, 4), tensorrt.BuildOptions(), "")
    source = EngineSource("tensorrt-rtx", model, batch=(1, 4), built=built)
    if not gpu.gpu_count():
        # The library itself says so, and no more than its header is read for that.
        assert "cannot run on sm00 (" in (tensorrt.misfit(library, source, "sm00") or "")
    stale = replace(built, built_with=built.built_with | {"tensorrt-rtx": "1.0.0"})
    first = tensorrt.usable_engine(library, replace(source, built=stale), "sm00")
    assert first.built_with["tensorrt-rtx"] == library.version
    assert first.layer_precisions == built.layer_precisions
    monkeypatch.setattr(tensorrt, "engine_from_onnx", None)
    second = tensorrt.usable_engine(library, replace(source, built=stale), "sm00")
    assert second.content == first.content


@pytest.mark.parametrize(
    ("device", "built_for"),
    [("NVIDIA GeForce RTX 2080 Ti, sm75", "sm75"), ("NVIDIA H100, sm90", "NVIDIA H100, sm90")],
)
def test_rtx_builds_again_for_the_gpu_at_hand(
    model: bytes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    device: str,
    built_for: str,
) -> None:
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    library = library_module.load_library("tensorrt-rtx")
    built = tensorrt.usable_engine(
        library, EngineSource("tensorrt-rtx", model, batch=(1, 4)), device
    )
    assert built.built_with["device"] == built_for
