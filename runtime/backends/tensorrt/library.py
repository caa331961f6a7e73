"""TensorRT 10, 11 and TensorRT-RTX: one API, and here is where they differ."""

from __future__ import annotations

import importlib
import threading
from collections import deque
from dataclasses import dataclass
from functools import cache
from typing import Any

from stpm.runtime.backends import ENGINES
from stpm.runtime.errors import BackendError

KEPT_MESSAGES = 20
"""The library's last errors: the first of them names the cause."""


@dataclass(frozen=True)
class Library:
    """One of the libraries, imported.

    Attributes:
        name: the engine's: "tensorrt" or "tensorrt-rtx".
        api: the module.
        logger: what the library writes its errors to; it knows one in a process.
        errors: those errors, the oldest first.
        lock: held while building, so that errors belong to one build.
    """

    name: str
    api: Any
    logger: Any
    errors: deque[str]
    lock: threading.Lock

    @property
    def version(self) -> str:
        """The library's version."""
        return str(self.api.__version__)

    @property
    def title(self) -> str:
        """Name and version as errors print them."""
        return f"{'TensorRT-RTX' if self.is_rtx else 'TensorRT'} {self.version}"

    @property
    def is_rtx(self) -> bool:
        """Whether engines are built without a GPU, for several, and finished on the one at hand."""
        return self.name == "tensorrt-rtx"

    def create(self, kind: str) -> Any:
        """Create a "Builder" or a "Runtime".

        Raises:
            BackendError: there is no GPU that it can use.
        """
        try:
            return getattr(self.api, kind)(self.logger)
        except Exception as error:
            # The binding turns a missing GPU into a TypeError of its own.
            raise BackendError(
                f"{self.title} cannot start ({self.reason()}); it needs an NVIDIA GPU and a "
                "driver of its CUDA version or newer."
            ) from error

    def reason(self) -> str:
        """Return the first error since the last call, in one line."""
        message = self.errors[0] if self.errors else "it gives no reason"
        self.errors.clear()
        return " ".join(message.split())

    def gpu_archs(self) -> dict[str, Any]:
        """Return the architectures that can be built for without a GPU, by names such as sm86."""
        if not self.is_rtx:
            return {}
        members = self.api.ComputeCapability.__members__
        return {name.lower(): value for name, value in members.items() if name.startswith("SM")}

    def archs_for(self, device: str) -> tuple[str, ...]:
        """Return what to build for, to run on a GPU of this label; empty is the library's choice.

        That leaves Turing out.
        """
        arch = device.rpartition(", ")[2]
        return (arch,) if arch in self.gpu_archs() else ()

    def use_timings(self, config: Any, kept: bytes | None) -> None:
        """Let a build use the timings of kernels that an earlier one kept, if they fit, and add.

        TensorRT-RTX measures nothing while it builds.
        """
        if self.is_rtx:
            return
        timings = config.create_timing_cache(kept or b"")
        if timings is None or not config.set_timing_cache(timings, False):
            self.errors.clear()
            config.set_timing_cache(config.create_timing_cache(b""), False)

    def timings(self, config: Any) -> bytes | None:
        """Return the timings of a build to keep; None where there are none."""
        found = None if self.is_rtx else config.get_timing_cache()
        return None if found is None else bytes(found.serialize())

    def refusal(self, plan: bytes) -> str | None:
        """Say why an engine cannot run on this machine; None when it can, or only loading tells."""
        if not self.is_rtx:
            return None
        validity, diagnostics = self.create("Runtime").get_engine_validity(plan)
        if validity != self.api.EngineValidity.INVALID:
            return None
        found = self.api.EngineInvalidityDiagnostics.__members__.items()
        reasons = [name for name, value in found if diagnostics & value.value]
        return ", ".join(reasons).lower().replace("_", " ") or self.reason()

    def create_context(self, engine: Any, kernels: bytes | None) -> tuple[Any, Any]:
        """Create an execution context.

        TensorRT-RTX compiles its kernels here, for the shapes that come, and can keep them.

        Args:
            engine: the deserialised engine.
            kernels: those that an earlier process kept.

        Returns:
            The context, and the cache of its kernels or None.
        """
        if not self.is_rtx:
            return engine.create_execution_context(), None
        config = engine.create_runtime_config()
        # A captured graph would for ever replay the general kernels that LAZY begins with.
        strategies = self.api.DynamicShapesKernelSpecializationStrategy
        config.dynamic_shapes_kernel_specialization_strategy = strategies.EAGER
        cached = config.create_runtime_cache()
        if kernels is not None:
            cached.deserialize(kernels)
        config.set_runtime_cache(cached)
        return engine.create_execution_context(config), cached

    def can_capture(self, context: Any, stream: int) -> bool:
        """Whether a context's work on a stream can be recorded as a CUDA graph."""
        return not self.is_rtx or bool(context.is_stream_capturable(stream))


@cache
def load_library(name: str) -> Library:
    """Import a library.

    Args:
        name: "tensorrt" or "tensorrt-rtx".

    Raises:
        BackendError: it is not installed, or is one that has no strongly typed networks.
    """
    spec = ENGINES[name]
    try:
        api = importlib.import_module(spec.library)
    except ImportError as error:
        raise BackendError(
            f"the engine {name} cannot be loaded ({error}); run {spec.install}."
        ) from error
    if not name.endswith("rtx") and int(api.__version__.split(".")[0]) < 10:
        raise BackendError(
            f"got TensorRT {api.__version__}, expected 10 or newer; run {spec.install} --upgrade."
        )
    errors: deque[str] = deque(maxlen=KEPT_MESSAGES)
    return Library(name, api, _logger(api, errors), errors, threading.Lock())


def _logger(api: Any, errors: deque[str]) -> Any:
    class ErrorLog(api.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            api.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity in (api.ILogger.INTERNAL_ERROR, api.ILogger.ERROR):
                errors.append(message)

    return ErrorLog()
