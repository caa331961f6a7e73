"""CUDA memory, streams and graphs, as the engines use them, through NVIDIA's cuda-python."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from cuda.bindings import runtime as cudart
from cuda.core.utils import StridedMemoryView
from numpy.typing import DTypeLike, NDArray

from stpm.runtime.errors import BackendError, DataError

DEFAULT_STREAM = 0
SYNC_NOTHING = -1
"""As a consumer's stream: establish no order with the producer's."""


def check(result: tuple[Any, ...]) -> Any:
    """Return what a CUDA call gives besides its status.

    Raises:
        BackendError: the call failed.
    """
    status, *values = result
    if status != cudart.cudaError_t.cudaSuccess:
        if status == cudart.cudaError_t.cudaErrorInsufficientDriver:
            version = check(cudart.getLocalRuntimeVersion())
            raise BackendError(
                f"the NVIDIA driver is missing or too old for CUDA {version // 1000}."
                f"{version % 1000 // 10}; install a newer driver."
            )
        raise BackendError(f"CUDA failed ({status.name}); check the GPU with nvidia-smi.")
    return values[0] if values else None


def device_label() -> str:
    """Return the name and architecture of the current GPU, such as "NVIDIA L4, sm89"."""
    properties = check(cudart.cudaGetDeviceProperties(check(cudart.cudaGetDevice())))
    return f"{properties.name.decode()}, sm{properties.major}{properties.minor}"


class Stream:
    """A stream of its own."""

    def __init__(self) -> None:
        flags = cudart.cudaStreamNonBlocking
        self._handle = check(cudart.cudaStreamCreateWithFlags(flags))
        self.address = int(self._handle)

    def synchronize(self) -> None:
        """Wait until all that was enqueued is done."""
        check(cudart.cudaStreamSynchronize(self.address))

    def capture(self, work: Callable[[], None]) -> Graph:
        """Record what work enqueues on this stream, without running it."""
        # Thread-local: what other threads allocate meanwhile must not break the capture.
        mode = cudart.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        check(cudart.cudaStreamBeginCapture(self.address, mode))
        try:
            work()
        finally:
            recorded = cudart.cudaStreamEndCapture(self.address)
        return Graph(check(recorded))

    def __del__(self) -> None:
        if hasattr(self, "_handle"):
            cudart.cudaStreamDestroy(self._handle)


class Graph:
    """Recorded work that is launched as a whole."""

    def __init__(self, recorded: Any) -> None:
        self._executable = check(cudart.cudaGraphInstantiate(recorded, 0))
        check(cudart.cudaGraphDestroy(recorded))

    def launch(self, stream: Stream) -> None:
        """Enqueue all of it."""
        check(cudart.cudaGraphLaunch(self._executable, stream.address))

    def __del__(self) -> None:
        if hasattr(self, "_executable"):
            cudart.cudaGraphExecDestroy(self._executable)


class DeviceArray:
    """An array on the GPU that owns its memory; torch, CuPy and pycuda take it as it is."""

    def __init__(self, shape: tuple[int, ...], dtype: DTypeLike) -> None:
        self.shape = shape
        self.dtype = np.dtype(dtype)
        self.size_bytes = int(np.prod(shape)) * self.dtype.itemsize
        self.address = int(check(cudart.cudaMalloc(self.size_bytes)))

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self.address, False),
            "strides": None,
            "version": 3,
        }

    def __del__(self) -> None:
        if hasattr(self, "address"):
            cudart.cudaFree(self.address)


class PinnedArray:
    """Page-locked memory of the host, which the GPU copies from and to without the processor."""

    def __init__(self, shape: tuple[int, ...], dtype: DTypeLike) -> None:
        dtype = np.dtype(dtype)
        self.size_bytes = int(np.prod(shape)) * dtype.itemsize
        flags = cudart.cudaHostAllocDefault
        self.address = int(check(cudart.cudaHostAlloc(self.size_bytes, flags)))
        memory = (ctypes.c_uint8 * self.size_bytes).from_address(self.address)
        self.array: NDArray[Any] = np.ctypeslib.as_array(memory).view(dtype).reshape(shape)

    def __del__(self) -> None:
        if hasattr(self, "address"):
            cudart.cudaFreeHost(self.address)


@dataclass(frozen=True)
class DeviceView:
    """Someone else's array on the GPU: its address, and the owner kept alive."""

    address: int
    shape: tuple[int, ...]
    owner: Any = field(repr=False)


def device_view(array: Any, dtype: DTypeLike, stream: int = SYNC_NOTHING) -> DeviceView:
    """Look at an array on the GPU without copying it.

    Args:
        array: any object with `__dlpack__` or `__cuda_array_interface__`.
        dtype: that it must have.
        stream: address of the stream that will use it, to wait there for the array's own.

    Raises:
        DataError: it is no such object, on the host, of another dtype, or not contiguous.
    """
    try:
        view = StridedMemoryView.from_any_interface(array, stream_ptr=stream)
    except BufferError as error:
        raise DataError(
            f"got {type(array).__name__}, expected an array on the GPU with __dlpack__ or "
            f"__cuda_array_interface__ ({error}); pass a torch, CuPy or pycuda array."
        ) from error
    dense = np.cumprod([1, *view.shape[:0:-1]])[::-1] if view.shape else np.array([], int)
    contiguous = view.strides is None or tuple(view.strides) == tuple(dense.tolist())
    if not view.is_device_accessible or view.dtype != np.dtype(dtype) or not contiguous:
        where = "the GPU" if view.is_device_accessible else "the host"
        raise DataError(
            f"got an array of {view.dtype} on {where}, {'' if contiguous else 'not '}contiguous, "
            f"expected {np.dtype(dtype)} on the GPU, contiguous; convert it."
        )
    return DeviceView(view.ptr, tuple(view.shape), view)


def copy(target: int, source: int, size_bytes: int, stream: Stream) -> None:
    """Enqueue a copy between any two addresses of host and GPU."""
    kind = cudart.cudaMemcpyKind.cudaMemcpyDefault
    check(cudart.cudaMemcpyAsync(target, source, size_bytes, kind, stream.address))
