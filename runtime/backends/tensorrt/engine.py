"""TensorRT and TensorRT-RTX on the GPU: a pool of contexts, each a recorded graph by batch size."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stpm.runtime.backends import BuiltEngine, EngineSource, Outputs
from stpm.runtime.backends.cache import cache_key, read_cache, write_cache
from stpm.runtime.backends.cuda import (
    DeviceArray,
    Graph,
    PinnedArray,
    Stream,
    copy,
    device_label,
    device_view,
)
from stpm.runtime.backends.pool import Pool
from stpm.runtime.backends.tensorrt.build import BuildOptions, engine_from_onnx
from stpm.runtime.backends.tensorrt.library import Library, load_library
from stpm.runtime.errors import BackendError, DataError

NAMES = ("images", "anomaly_map", "pred_score")


class TensorRtEngine:
    """A deserialised engine; each thread takes a context of its own from the pool."""

    def __init__(self, library: Library, built: BuiltEngine, batch: tuple[int, int]) -> None:
        self._library = library
        self._built = built
        self._device = device_label()
        self._runtime = library.create("Runtime")
        engine = self._runtime.deserialize_cuda_engine(built.content)
        if engine is None:
            raise BackendError(
                f"{library.title} cannot load the engine ({library.reason()}); export again "
                "on this machine, or install the driver that this version needs."
            )
        graph = built.built_with.get("model_sha256", "")
        kernels = cache_key("kernels", library.name, library.version, self._device, graph)
        self._slots = Pool(lambda: _Slot(library, engine, batch[1], kernels))

    def run(self, images: NDArray[np.uint8]) -> Outputs:
        """Score a batch; the outputs are copied out of the context's page-locked buffers."""
        with self._slots.one() as slot:
            return slot.run(images)

    def run_on_device(
        self, images: Any, out: tuple[Any, Any] | None = None
    ) -> tuple[DeviceArray, DeviceArray] | tuple[Any, Any]:
        """Score a batch that lies on the GPU, without a copy; it is done when this returns.

        Called again with the same arrays, it replays a recorded graph.

        Args:
            images: uint8 (N,H,W,C), contiguous, with `__dlpack__` or `__cuda_array_interface__`.
            out: float32 (N,h,w) and (N,) on the GPU to write into; None makes new ones.

        Returns:
            The anomaly maps and scores on the GPU. The caller owns them.

        Raises:
            DataError: an array is not on the GPU or does not fit.
        """
        with self._slots.one() as slot:
            return slot.run_on_device(images, out)

    def layer_precisions(self) -> dict[str, str]:
        """Return the types of the network that the engine was built from."""
        return dict(self._built.layer_precisions)

    def built_with(self) -> dict[str, str]:
        """Name the library's version and the device."""
        return {self._library.name: self._library.version, "device": self._device}


class _Slot:
    """A context with its stream, its buffers for the largest batch, and graphs by batch size."""

    def __init__(self, library: Library, engine: Any, largest: int, kernels: str) -> None:
        self._library = library
        self._kernels_name = kernels
        self._context, self._kernels = library.create_context(engine, read_cache(kernels))
        if self._context is None:
            raise BackendError(
                f"{library.title} cannot create a context ({library.reason()}); free GPU memory "
                "or choose another engine."
            )
        shapes = [(largest, *tuple(engine.get_tensor_shape(name))[1:]) for name in NAMES]
        self._image_shape = shapes[0][1:]
        self._map_shape = shapes[1][1:]
        types = (np.uint8, np.float32, np.float32)
        pairs = list(zip(shapes, types, strict=True))
        self._largest = largest
        self._stream = Stream()
        self._host = [PinnedArray(shape, dtype) for shape, dtype in pairs]
        self._device = [DeviceArray(shape, dtype) for shape, dtype in pairs]
        self._graphs: dict[int, Graph | None] = {}
        self._device_graphs: dict[int, tuple[list[int], Graph | None]] = {}

    def run(self, images: NDArray[np.uint8]) -> Outputs:
        count = self._count(images.shape)
        self._host[0].array[:count] = images
        if count not in self._graphs:
            self._graphs[count] = self._record(lambda: self._round_trip(count))
        self._launch(self._graphs[count], lambda: self._round_trip(count))
        maps, scores = (buffer.array[:count].copy() for buffer in self._host[1:])
        return maps, scores

    def run_on_device(
        self, images: Any, out: tuple[Any, Any] | None
    ) -> tuple[DeviceArray, DeviceArray] | tuple[Any, Any]:
        stream = self._stream.address
        source = device_view(images, np.uint8, stream)
        count = self._count(source.shape)
        shapes = ((count, *self._map_shape), (count,))
        results = out or tuple(DeviceArray(shape, np.float32) for shape in shapes)
        views = [device_view(result, np.float32, stream) for result in results]
        if [view.shape for view in views] != list(shapes):
            raise DataError(
                f"got outputs of shapes {[view.shape for view in views]}, expected {shapes}."
            )
        addresses = [view.address for view in (source, *views)]

        def work() -> None:
            self._infer(count, addresses)

        known, graph = self._device_graphs.get(count, ([], None))
        # Recording pays for arrays that come again; others are scored as they are.
        if known == addresses and graph is None:
            graph = self._record(work)
        self._device_graphs[count] = (addresses, graph if known == addresses else None)
        self._launch(self._device_graphs[count][1], work)
        return results[0], results[1]

    def _count(self, shape: tuple[int, ...]) -> int:
        if len(shape) != 4 or shape[1:] != self._image_shape or shape[0] > self._largest:
            raise DataError(
                f"got images of shape {tuple(shape)}, expected up to {self._largest} of "
                f"{self._image_shape}."
            )
        return shape[0]

    def _round_trip(self, count: int) -> None:
        shares = [buffer.size_bytes * count // self._largest for buffer in self._host]
        copy(self._device[0].address, self._host[0].address, shares[0], self._stream)
        self._infer(count, [buffer.address for buffer in self._device])
        for host, device, size_bytes in zip(self._host, self._device, shares, strict=True):
            if host is not self._host[0]:
                copy(host.address, device.address, size_bytes, self._stream)

    def _infer(self, count: int, addresses: list[int]) -> None:
        context = self._context
        fits = context.set_input_shape(NAMES[0], (count, *self._image_shape))
        for name, address in zip(NAMES, addresses, strict=True):
            fits = fits and context.set_tensor_address(name, address)
        if not fits or not context.execute_async_v3(self._stream.address):
            raise BackendError(f"{self._library.title} failed ({self._library.reason()}).")

    def _record(self, work: Callable[[], None]) -> Graph | None:
        """Run once, so that all memory and kernels are there, then record; None if it cannot be."""
        work()
        self._stream.synchronize()
        if self._kernels is not None:
            write_cache(self._kernels_name, bytes(self._kernels.serialize()))
        if not self._library.can_capture(self._context, self._stream.address):
            return None
        return self._stream.capture(work)

    def _launch(self, graph: Graph | None, work: Callable[[], None]) -> None:
        if graph is not None:
            graph.launch(self._stream)
        else:
            work()
        self._stream.synchronize()


def load(source: EngineSource) -> TensorRtEngine:
    """Open the bundle's engine, or one that is built here from its graph and kept.

    Raises:
        BackendError: the library or the GPU cannot run it, or it may not be built again.
    """
    library = load_library(source.name)
    return TensorRtEngine(library, usable_engine(library, source, device_label()), source.batch)


def usable_engine(library: Library, source: EngineSource, device: str) -> BuiltEngine:
    """Return the bundle's engine if it fits library, device and graph, else build one.

    Raises:
        BackendError: it does not fit, and may not or cannot be built again.
    """
    problem = misfit(library, source, device)
    if source.built is not None and problem is None:
        return source.built
    if not source.rebuild:
        raise BackendError(
            f"the bundle's {source.name} engine {problem}, and may not be rebuilt; export on "
            "this machine, or leave --no-rebuild out."
        )
    built = source.built or BuiltEngine(None)
    archs = library.archs_for(device)
    options = replace(BuildOptions.from_texts(built.built_with), gpu_archs=archs)
    sha256 = hashlib.sha256(source.model).hexdigest()
    key = cache_key("engine", library.name, library.version, device, sha256, source.batch, options)
    built_with = {library.name: library.version, "device": device, "model_sha256": sha256}
    kept = read_cache(key)
    if kept is not None:
        return replace(built, content=kept, built_with=built_with | options.to_texts())
    rebuilt = engine_from_onnx(library, source.model, source.batch, options, device)
    if rebuilt.content is not None:
        write_cache(key, rebuilt.content)
    return rebuilt


def misfit(library: Library, source: EngineSource, device: str) -> str | None:
    """Say how the bundle's engine does not fit; None when it may be loaded."""
    built = source.built
    if built is None:
        return "is missing"
    if built.content is None:
        return "is missing or differs from the manifest's hash"
    made = built.built_with
    if made.get("model_sha256") != hashlib.sha256(source.model).hexdigest():
        return "was built from another graph"
    if made.get(library.name) != library.version:
        return f"was built with version {made.get(library.name)}, here is {library.title}"
    if not library.is_rtx and made.get("device") != device:
        return f"was built for {made.get('device')}, here is {device}"
    refusal = library.refusal(built.content)
    return None if refusal is None else f"cannot run on {device} ({refusal})"
