"""torch on the GPU: a compiled package in a captured CUDA graph, without the training code."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch._inductor.package.package import load_package
from torch.utils.dlpack import from_dlpack

from stpm.runtime.backends import EngineSource, Outputs
from stpm.runtime.errors import BackendError, DataError

PARTS = ("prepare", "teacher", "student", "score")
"""Names of the models in a package."""
Both = Callable[[Callable[[], Any], Callable[[], Any]], tuple[Any, Any]]


def one_after_the_other(first: Callable[[], Any], second: Callable[[], Any]) -> tuple[Any, Any]:
    """Call both; see `Package.score`."""
    return first(), second()


def without_tf32() -> AbstractContextManager[None]:
    """Compute FP32 convolutions in FP32: by default torch rounds their factors to 10 bits."""
    flags: AbstractContextManager[None] = torch.backends.cudnn.flags(enabled=True, allow_tf32=False)
    return flags


class Package:
    """The parts of one package, loaded; one thread at a time may run them."""

    def __init__(self, content: bytes) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "package.pt2"
            path.write_bytes(content)
            # Its locks would not let a CUDA graph be captured.
            parts = [load_package(str(path), name, run_single_threaded=True) for name in PARTS]
        self._prepare, self._teacher, self._student, self._score = parts

    def score(self, images: Tensor, both: Both = one_after_the_other) -> tuple[Tensor, Tensor]:
        """Score images uint8 (N,H,W,3); `both` calls teacher and student."""
        with without_tf32():
            x = self._prepare(images)
            targets, students = both(lambda: self._teacher(x), lambda: self._student(x))
            maps, scores = self._score(*targets, *students)
        return maps, scores


class TorchCudaEngine:
    """A package for this GPU; each thread takes runners and graphs of its own from the pool."""

    def __init__(self, content: bytes, batch: tuple[int, int]) -> None:
        self._content = content
        self._largest = batch[1]
        self._idle: SimpleQueue[_Slot] = SimpleQueue()
        self._idle.put(_Slot(content, self._largest))

    def run(self, images: NDArray[np.uint8]) -> Outputs:
        """Score a batch; the outputs are copied out of page-locked buffers."""
        with self._slot() as slot:
            maps, scores = slot.run(torch.from_numpy(images))
            return maps.numpy().copy(), scores.numpy().copy()

    def run_on_device(self, images: Any, out: tuple[Any, Any] | None = None) -> tuple[Any, Any]:
        """Score a batch on the GPU; it is copied there into the recorded graph's input.

        Args:
            images: uint8 (N,H,W,3) on the GPU with `__dlpack__` or `__cuda_array_interface__`.
            out: float32 (N,h,w) and (N,) on the GPU to write into; None makes new tensors.

        Raises:
            DataError: an array is not on the GPU or does not fit.
        """
        with self._slot() as slot:
            maps, scores = slot.run(_on_gpu(images), to_host=False)
            results = out or (torch.empty_like(maps), torch.empty_like(scores))
            for target, source in zip(results, (maps, scores), strict=True):
                _on_gpu(target).copy_(source)
            torch.cuda.current_stream().synchronize()
            return results

    def layer_precisions(self) -> dict[str, str]:
        """The package computes in the graph's types and reports none."""
        return {}

    def built_with(self) -> dict[str, str]:
        """Name torch's version and the device."""
        return versions()

    @contextmanager
    def _slot(self) -> Iterator[_Slot]:
        try:
            slot = self._idle.get_nowait()
        except Empty:
            slot = _Slot(self._content, self._largest)
        try:
            yield slot
        finally:
            self._idle.put(slot)


@dataclass(frozen=True)
class _Recorded:
    """A captured graph, and what it reads and writes; `staged` and `on_host` are page-locked."""

    graph: torch.cuda.CUDAGraph
    staged: Tensor
    pixels: Tensor
    on_device: list[Tensor]
    on_host: list[Tensor]


class _Slot:
    """Runners, buffers for the largest batch, and a recorded graph by batch size."""

    def __init__(self, content: bytes, largest: int) -> None:
        self._package = Package(content)
        self._largest = largest
        self._side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self._main = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self._graphs: dict[int, _Recorded] = {}

    def run(self, images: Tensor, *, to_host: bool = True) -> list[Tensor]:
        """Replay the graph of this batch size; its outputs are overwritten by the next run."""
        count = len(images)
        if images.ndim != 4 or not 0 < count <= self._largest:
            raise DataError(
                f"got images of shape {tuple(images.shape)}, expected (N,H,W,3) with N up to "
                f"{self._largest}."
            )
        if count not in self._graphs:
            self._graphs[count] = self._record(images)
        recorded = self._graphs[count]
        expected = recorded.pixels.shape
        if images.shape != expected:
            raise DataError(
                f"got images of shape {tuple(images.shape)}, expected {tuple(expected)}."
            )
        if not images.is_cuda:
            images = recorded.staged.copy_(images)
        recorded.pixels.copy_(images, non_blocking=True)
        recorded.graph.replay()
        torch.cuda.current_stream().synchronize()
        return recorded.on_host if to_host else recorded.on_device

    def _record(self, images: Tensor) -> _Recorded:
        pixels = torch.zeros(images.shape, dtype=torch.uint8, device="cuda")
        with torch.cuda.stream(self._main):
            # Kernels are loaded and memory is set aside before anything is captured.
            on_device = list(self._package.score(pixels, self._both))
        torch.cuda.synchronize()
        on_host = [torch.empty(t.shape, dtype=t.dtype, pin_memory=True) for t in on_device]
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self._main):
            on_device = list(self._package.score(pixels, self._both))
            for host, device in zip(on_host, on_device, strict=True):
                host.copy_(device, non_blocking=True)
        staged = torch.empty(images.shape, dtype=torch.uint8, pin_memory=True)
        return _Recorded(graph, staged, pixels, on_device, on_host)

    def _both(self, first: Callable[[], Any], second: Callable[[], Any]) -> tuple[Any, Any]:
        """Run both at once, on two streams."""
        main = torch.cuda.current_stream()
        self._side.wait_stream(main)
        with torch.cuda.stream(self._side):
            beside = second()
        result = first()
        main.wait_stream(self._side)
        return result, beside


def _on_gpu(array: Any) -> Tensor:
    try:
        tensor = (
            torch.as_tensor(array)
            if hasattr(array, "__cuda_array_interface__")
            else (from_dlpack(array))
        )
    except (TypeError, AttributeError, RuntimeError, BufferError) as error:
        raise DataError(
            f"got {type(array).__name__}, expected an array on the GPU with __dlpack__ or "
            f"__cuda_array_interface__ ({error})."
        ) from error
    if not tensor.is_cuda:
        raise DataError("got an array on the host, expected one on the GPU; move it there.")
    return tensor


def versions() -> dict[str, str]:
    """Name torch's version and the current GPU."""
    major, minor = torch.cuda.get_device_capability()
    device = f"{torch.cuda.get_device_name()}, sm{major}{minor}"
    return {"torch": torch.__version__, "device": device}


def load(source: EngineSource) -> TorchCudaEngine:
    """Load the bundle's package.

    Raises:
        BackendError: there is none, or it was compiled for another torch or GPU.
    """
    built = source.built
    if built is None or built.content is None:
        raise BackendError(
            "the bundle brings no torch-cuda package that matches its hash; export it again with "
            "--engine torch-cuda on a machine with a GPU."
        )
    if not torch.cuda.is_available():
        raise BackendError(
            f"torch {torch.__version__} sees no GPU; install a torch with CUDA and its driver."
        )
    here = versions()
    for name, found in here.items():
        made = built.built_with.get(name)
        if made != found:
            raise BackendError(
                f"the bundle's torch-cuda package was compiled for {name} {made}, here is {found}; "
                "it cannot be built again without the checkpoint: export it here."
            )
    try:
        return TorchCudaEngine(built.content, source.batch)
    except RuntimeError as error:
        raise BackendError(
            f"torch {torch.__version__} cannot run the bundle's package on the GPU "
            f"({str(error).splitlines()[0]}); export it again on this machine."
        ) from error
