"""Engines: what runs a deployment graph. One file an engine; this one chooses among them."""

from __future__ import annotations

import importlib
import importlib.util
import os
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from stpm.runtime.backends.gpu import gpu_count
from stpm.runtime.errors import BackendError

# Recent ONNX Runtimes report their use to Microsoft, from threads that start on import and that a
# forked child waits for without end when it exits.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

Outputs = tuple[NDArray[np.float32], NDArray[np.float32]]
"""anomaly_maps (N,h,w) and pred_scores (N,). The caller owns both: no later run changes them."""


class Engine(Protocol):
    """A deployment graph, loaded and ready; many threads may call `run` at once."""

    def run(self, images: NDArray[np.uint8]) -> Outputs:
        """Score a batch that fits the graph: uint8 (N,H,W,C), contiguous."""
        ...

    def layer_precisions(self) -> dict[str, str]:
        """Return each executed layer's precision by its names in the graph; empty if unknown."""
        ...

    def built_with(self) -> dict[str, str]:
        """Name the library, its version and the device."""
        ...


@runtime_checkable
class DeviceEngine(Protocol):
    """An engine that also scores arrays on the GPU; see `Detector.score_on_device`."""

    def run_on_device(self, images: Any, out: tuple[Any, Any] | None = None) -> tuple[Any, Any]:
        """Score a batch on the GPU; done when this returns."""
        ...


@runtime_checkable
class BulkEngine(Protocol):
    """An engine whose `run` takes any number of images and keeps several batches in flight."""

    def run(self, images: NDArray[np.uint8]) -> Outputs:
        """Score images uint8 (N,H,W,C), contiguous, N at least the graph's smallest batch."""
        ...

    def run_scores(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Score them and leave the maps, which fill the bus, on the GPU: (N,)."""
        ...


@dataclass(frozen=True)
class BuiltEngine:
    """An engine's file and what it was built with.

    Attributes:
        content: the file; None when it is missing or does not match the bundle's hash.
        built_with: library version, device, hash of the graph and how it was built.
        layer_precisions: each layer's type by its name in the graph.
    """

    content: bytes | None
    built_with: dict[str, str] = field(default_factory=dict)
    layer_precisions: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class EngineSource:
    """What an engine is opened from.

    Attributes:
        name: a key of `ENGINES`.
        model: the ONNX file's content.
        threads: processor threads of one run; 0 leaves the choice to the engine.
        batch: smallest and largest batch of the graph.
        built: the engine that the bundle brings; None when it brings none.
        rebuild: whether an engine that does not fit this machine may be built again.
    """

    name: str
    model: bytes
    threads: int = 0
    batch: tuple[int, int] = (1, 1)
    built: BuiltEngine | None = None
    rebuild: bool = True


@dataclass(frozen=True)
class EngineSpec:
    """How an engine is found, installed and kept in a bundle.

    Attributes:
        library: its library's import name.
        module: its module here, from this room on.
        install: the command that installs it.
        needs_gpu: whether it runs on an NVIDIA GPU only.
        distribution: name in the package index, where the import name does not tell it apart.
        file: the bundle's file for it, where it brings more than the graph.
        exports_without_gpu: whether a bundle may name it where it cannot run.
    """

    library: str
    module: str
    install: str
    needs_gpu: bool = False
    distribution: str = ""
    file: str = ""
    exports_without_gpu: bool = False


ENGINES = {
    "tensorrt": EngineSpec(
        "tensorrt",
        "tensorrt.engine",
        "pip install 'stpm[tensorrt]'",
        needs_gpu=True,
        file="tensorrt.engine",
    ),
    "tensorrt-rtx": EngineSpec(
        "tensorrt_rtx",
        "tensorrt.engine",
        "pip install 'stpm[tensorrt-rtx]'",
        needs_gpu=True,
        file="tensorrt-rtx.engine",
        exports_without_gpu=True,
    ),
    "torch-cuda": EngineSpec(
        "torch",
        "torch_cuda",
        "pip install 'stpm[torch-cuda]'",
        needs_gpu=True,
        exports_without_gpu=True,
    ),
    "onnxruntime-tensorrt": EngineSpec(
        "onnxruntime",
        "onnxruntime_gpu",
        "pip install 'stpm[gpu]'",
        needs_gpu=True,
        distribution="onnxruntime-gpu",
    ),
    "onnxruntime-cuda": EngineSpec(
        "onnxruntime",
        "onnxruntime_gpu",
        "pip install 'stpm[gpu]'",
        needs_gpu=True,
        distribution="onnxruntime-gpu",
    ),
    "openvino": EngineSpec("openvino", "openvino_cpu", "pip install 'stpm[openvino]'"),
    "onnxruntime": EngineSpec("onnxruntime", "onnxruntime_cpu", "pip install onnxruntime"),
}
"""Fastest first: on the processor as measured by benchmarks/, on the GPU as expected."""


def installed_engines() -> list[str]:
    """Name the engines that are installed and can run on this machine, fastest first."""
    return [
        name
        for name, spec in ENGINES.items()
        if is_installed(spec) and (not spec.needs_gpu or gpu_count())
    ]


def check_engine(name: str, *, to_export: bool = False) -> None:
    """Refuse an engine that cannot be opened here.

    Args:
        name: the engine's.
        to_export: whether it is enough that a bundle can name it; see `EngineSpec`.

    Raises:
        BackendError: it is unknown, not installed, or needs a GPU that is not here.
    """
    if name not in ENGINES:
        raise BackendError(
            f"got engine {name!r}, expected one of {', '.join(ENGINES)}; choose one."
        )
    spec = ENGINES[name]
    needs_gpu = spec.needs_gpu and not (to_export and spec.exports_without_gpu)
    if needs_gpu and not gpu_count():
        raise BackendError(
            f"the engine {name} needs an NVIDIA GPU, and none was found; check nvidia-smi "
            "and CUDA_VISIBLE_DEVICES, or choose another engine."
        )
    if not is_installed(spec):
        raise BackendError(f"the engine {name} is not installed; run {spec.install}.")


def open_engine(
    name: str,
    model: bytes,
    *,
    threads: int = 0,
    batch: tuple[int, int] = (1, 1),
    built: BuiltEngine | None = None,
    rebuild: bool = True,
) -> Engine:
    """Load a deployment graph into an engine; see `EngineSource` for the arguments.

    Raises:
        BackendError: the engine is unknown, not installed, or cannot run the graph.
    """
    check_engine(name)
    try:
        module = importlib.import_module(f"stpm.runtime.backends.{ENGINES[name].module}")
    except ImportError as error:
        raise BackendError(
            f"the engine {name} is installed but cannot be loaded ({error}); install it again."
        ) from error
    engine: Engine = module.load(EngineSource(name, model, threads, batch, built, rebuild))
    return engine


def is_installed(spec: EngineSpec) -> bool:
    """Say whether an engine's library is there, without loading it."""
    if importlib.util.find_spec(spec.library) is None:
        return False
    try:
        return not spec.distribution or bool(version(spec.distribution))
    except PackageNotFoundError:
        return False
