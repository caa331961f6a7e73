"""A GPU made of host memory: CUDA's calls and TensorRT's contexts, as far as the engine uses them.

Copies are memmove, contexts run ONNX Runtime on the addresses that they are given, and a captured
graph is the list of calls that were made meanwhile. What real CUDA forbids, this refuses as well:
allocating in a capture, and a context in two threads.
"""

from __future__ import annotations

import ctypes
import itertools
import threading
from collections import Counter
from collections.abc import Callable
from enum import Enum
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime as ort


class Status(Enum):
    cudaSuccess = 0
    cudaErrorMemoryAllocation = 2
    cudaErrorInsufficientDriver = 35
    cudaErrorStreamCaptureUnsupported = 900


class FakeCuda:
    """What `cuda.bindings.runtime` offers. `calls` counts, `live` holds what was not freed."""

    cudaError_t = Status
    cudaMemcpyKind = SimpleNamespace(cudaMemcpyDefault=4)
    cudaStreamCaptureMode = SimpleNamespace(cudaStreamCaptureModeThreadLocal=1)
    cudaStreamNonBlocking = 1
    cudaHostAllocDefault = 0

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.live: dict[int, Any] = {}
        self.capturing: dict[int, list[Callable[[], None]]] = {}
        self._handles = itertools.count(1)
        self._lock = threading.Lock()

    def submit(self, stream: int, work: Callable[[], None]) -> None:
        """Do work now, or note it where the stream is being captured."""
        if stream in self.capturing:
            self.capturing[stream].append(work)
        else:
            work()

    def _new(self, kind: str, value: Any) -> tuple[Status, int]:
        with self._lock:
            self.calls[kind] += 1
            handle = next(self._handles)
            self.live[handle] = value
        return Status.cudaSuccess, handle

    def _allocate(self, size: int) -> tuple[Status, int]:
        if self.capturing:
            return Status.cudaErrorStreamCaptureUnsupported, 0
        memory = ctypes.create_string_buffer(size)
        with self._lock:
            self.calls["allocate"] += 1
            self.live[ctypes.addressof(memory)] = memory
        return Status.cudaSuccess, ctypes.addressof(memory)

    def cudaMalloc(self, size: int) -> tuple[Status, int]:
        return self._allocate(size)

    def cudaHostAlloc(self, size: int, flags: int) -> tuple[Status, int]:
        return self._allocate(size)

    def _free(self, handle: int) -> tuple[Status]:
        del self.live[handle]
        return (Status.cudaSuccess,)

    cudaFree = cudaFreeHost = cudaStreamDestroy = cudaGraphDestroy = cudaGraphExecDestroy = _free

    def cudaGetDevice(self) -> tuple[Status, int]:
        return Status.cudaSuccess, 0

    def cudaGetDeviceProperties(self, device: int) -> tuple[Status, Any]:
        return Status.cudaSuccess, SimpleNamespace(name=b"Fake GPU", major=8, minor=9)

    def getLocalRuntimeVersion(self) -> tuple[Status, int]:
        return Status.cudaSuccess, 13020

    def cudaStreamCreateWithFlags(self, flags: int) -> tuple[Status, int]:
        return self._new("stream", "stream")

    def cudaStreamSynchronize(self, stream: int) -> tuple[Status]:
        self.calls["synchronize"] += 1
        return (Status.cudaSuccess,)

    def cudaStreamBeginCapture(self, stream: int, mode: int) -> tuple[Status]:
        self.capturing[stream] = []
        return (Status.cudaSuccess,)

    def cudaStreamEndCapture(self, stream: int) -> tuple[Status, int]:
        return self._new("capture", self.capturing.pop(stream))

    def cudaGraphInstantiate(self, graph: int, flags: int) -> tuple[Status, int]:
        return self._new("instantiate", list(self.live[graph]))

    def cudaGraphLaunch(self, graph: int, stream: int) -> tuple[Status]:
        self.calls["launch"] += 1
        for work in self.live[graph]:
            work()
        return (Status.cudaSuccess,)

    def cudaMemcpyAsync(
        self, target: int, source: int, size: int, kind: int, stream: int
    ) -> tuple[Status]:
        self.calls["copy"] += 1
        self.submit(stream, lambda: ctypes.memmove(target, source, size) and None)
        return (Status.cudaSuccess,)


class FakeTensorRt:
    """What `tensorrt` offers to run an engine; a plan is the ONNX file itself."""

    __version__ = "10.13.0"

    def __init__(self, cuda: FakeCuda) -> None:
        self.cuda = cuda
        self.deserialized: list[bytes] = []
        self.contexts: list[FakeContext] = []

    def Runtime(self, logger: Any) -> FakeTensorRt:
        return self

    def deserialize_cuda_engine(self, plan: bytes) -> FakeEngine | None:
        self.deserialized.append(plan)
        return FakeEngine(self, plan) if plan else None


class FakeEngine:
    def __init__(self, api: FakeTensorRt, plan: bytes) -> None:
        self.api = api
        self.session = ort.InferenceSession(plan, providers=["CPUExecutionProvider"])

    def get_tensor_shape(self, name: str) -> list[int]:
        values = [*self.session.get_inputs(), *self.session.get_outputs()]
        shape = next(value.shape for value in values if value.name == name)
        return [-1 if isinstance(side, str) else side for side in shape]

    def create_execution_context(self) -> FakeContext:
        context = FakeContext(self)
        self.api.contexts.append(context)
        return context


class FakeContext:
    def __init__(self, engine: FakeEngine) -> None:
        self.engine = engine
        self.executions = 0
        self._addresses: dict[str, int] = {}
        self._shape: tuple[int, ...] = ()
        self._busy = threading.Lock()

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self._shape = shape
        return True

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._addresses[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        self.executions += 1
        addresses, shape = dict(self._addresses), self._shape
        self.engine.api.cuda.submit(stream, lambda: self._execute(addresses, shape))
        return True

    def _execute(self, addresses: dict[str, int], shape: tuple[int, ...]) -> None:
        if not self._busy.acquire(blocking=False):
            raise AssertionError("two threads use one context")
        try:
            size = int(np.prod(shape))
            pixels = (ctypes.c_uint8 * size).from_address(addresses["images"])
            images = np.frombuffer(pixels, np.uint8).reshape(shape)
            for name in ("anomaly_map", "pred_score"):
                (result,) = self.engine.session.run([name], {"images": images})
                ctypes.memmove(addresses[name], result.ctypes.data, result.nbytes)
        finally:
            self._busy.release()


class FakeView:
    """What `StridedMemoryView` tells of an object with `__cuda_array_interface__`."""

    is_device_accessible = True
    strides = None

    def __init__(self, interface: dict[str, Any]) -> None:
        self.ptr, self.shape = interface["data"][0], interface["shape"]
        self.dtype = np.dtype(interface["typestr"])

    @classmethod
    def from_any_interface(cls, array: Any, stream_ptr: int) -> FakeView:
        return cls(array.__cuda_array_interface__)
