"""Engines: what runs a deployment graph. One file an engine; this one chooses among them."""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from stpm.runtime.errors import BackendError

Outputs = tuple[NDArray[np.float32], NDArray[np.float32]]
"""anomaly_maps (N,h,w) and pred_scores (N,). The caller owns both: no later run changes them."""


class Engine(Protocol):
    """A deployment graph, loaded and ready; many threads may call `run` at once."""

    def run(self, images: NDArray[np.uint8]) -> Outputs:
        """Score a batch that fits the graph: uint8 (N,H,W,3), contiguous."""
        ...

    def layer_precisions(self) -> dict[str, str]:
        """Return each executed layer's precision by its names in the graph; empty if unknown."""
        ...

    def built_with(self) -> dict[str, str]:
        """Name the library, its version and the device."""
        ...


@dataclass(frozen=True)
class EngineSpec:
    """How an engine is found: its library's import name, its file here, how to install it."""

    library: str
    module: str
    install: str


ENGINES = {
    "openvino": EngineSpec("openvino", "openvino_cpu", "pip install 'stpm[openvino]'"),
    "onnxruntime": EngineSpec("onnxruntime", "onnxruntime_cpu", "pip install onnxruntime"),
}
"""Fastest first, as measured by benchmarks/."""


def installed_engines() -> list[str]:
    """Name the engines whose library is installed, fastest first."""
    return [name for name, spec in ENGINES.items() if importlib.util.find_spec(spec.library)]


def check_engine(name: str) -> None:
    """Refuse an engine that cannot be opened here.

    Raises:
        BackendError: it is unknown or not installed.
    """
    if name not in ENGINES:
        raise BackendError(
            f"got engine {name!r}, expected one of {', '.join(ENGINES)}; choose one."
        )
    if name not in installed_engines():
        raise BackendError(f"the engine {name} is not installed; run {ENGINES[name].install}.")


def open_engine(name: str, model: bytes, *, threads: int = 0) -> Engine:
    """Load a deployment graph into an engine.

    Args:
        name: a key of `ENGINES`.
        model: the ONNX file's content.
        threads: processor threads of one run; 0 leaves the choice to the engine.

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
    engine: Engine = module.load(model, threads)
    return engine
