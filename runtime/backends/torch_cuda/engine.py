"""The engine: batches of any number, several of them in flight."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from stpm.runtime.backends import EngineSource, Outputs
from stpm.runtime.backends.pool import Pool
from stpm.runtime.backends.torch_cuda.network import FusedNetwork
from stpm.runtime.backends.torch_cuda.slot import Slot
from stpm.runtime.errors import BackendError, DataError

IN_FLIGHT = 2
"""Batches under way at once: one is copied while the other is computed."""
CHUNK = 64
"""Images of a batch where there are more: enough to fill a GPU, few enough to overlap."""


class TorchCudaEngine:
    """A graph on the GPU; each thread takes buffers and captured graphs from the pool."""

    def __init__(self, content: bytes, batch: tuple[int, int]) -> None:
        """Read the bundle's ONNX file; `batch` is the smallest and the largest that it takes."""
        network = FusedNetwork(content, torch.device("cuda"))
        self._network = network
        self._batch = batch
        self._slots = Pool(lambda: Slot(network))
        if network.slower_because:
            warnings.warn(
                "torch-cuda runs without its Triton kernels, slower "
                f"({network.slower_because}); install triton and a C compiler.",
                RuntimeWarning,
                stacklevel=2,
            )

    def run(self, images: NDArray[np.uint8]) -> Outputs:
        """Score any number of images (N,H,W,C); several batches in flight."""
        maps, scores = self._score(images, with_maps=True)
        assert maps is not None
        return maps, scores

    def run_scores(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Score any number of images (N,H,W,C) and leave the maps on the GPU: (N,)."""
        return self._score(images, with_maps=False)[1]

    def run_on_device(self, images: Any, out: tuple[Any, Any] | None = None) -> tuple[Any, Any]:
        """Score a batch on the GPU; it is copied there into the recorded graph's input.

        Args:
            images: uint8 (N,H,W,C) on the GPU with `__dlpack__` or `__cuda_array_interface__`.
            out: float32 (N,h,w) and (N,) on the GPU to write into; None makes new tensors.

        Raises:
            DataError: an array is not on the GPU or does not fit.
        """
        pixels = _on_gpu(images)
        if pixels.dtype != torch.uint8:
            raise DataError(f"got images of {pixels.dtype}, expected torch.uint8; convert them.")
        self._check(tuple(pixels.shape))
        count = len(pixels)
        results = out or (
            torch.empty((count, *self._network.map_size), device=pixels.device),
            torch.empty(count, device=pixels.device),
        )
        maps, scores = (_on_gpu(target) for target in results)
        with self._slots.one() as slot:
            slot.run_on_device(pixels, self._size_for(count), maps, scores)
        return results

    def replay_seconds(self, count: int) -> float:
        """Time the GPU alone for a batch of `count` images that lie there."""
        with self._slots.one() as slot:
            return slot.replay_seconds(self._size_for(count))

    def layer_precisions(self) -> dict[str, str]:
        """Nothing: the graph's types are what is computed in."""
        return {}

    def built_with(self) -> dict[str, str]:
        """Name torch's version, the GPU, and what computes outside the convolutions."""
        kernels = "torch" if self._network.slower_because else "triton"
        return versions() | {"kernels": kernels}

    def _score(
        self, images: NDArray[np.uint8], *, with_maps: bool
    ) -> tuple[NDArray[np.float32] | None, NDArray[np.float32]]:
        """Score in chunks, of which up to `IN_FLIGHT` are copied and computed at once."""
        self._check((min(len(images), self._batch[1]), *images.shape[1:]))
        chunk = self._batch[1] if self._batch[0] > CHUNK else min(self._batch[1], CHUNK)
        starts = range(0, len(images), chunk)
        shape = (len(images), *self._network.map_size) if with_maps else (len(images), 0, 0)
        maps, scores = np.empty(shape, np.float32), np.empty(len(images), np.float32)
        with self._slots.several(min(IN_FLIGHT, len(starts))) as slots:
            under_way: list[tuple[Slot, slice]] = []
            for i, start in enumerate(starts):
                slot, part = slots[i % len(slots)], slice(start, min(start + chunk, len(images)))
                if len(under_way) == len(slots):
                    _collect(*under_way.pop(0), maps, scores)
                size = self._size_for(part.stop - part.start)
                slot.enqueue(images[part], size, "maps" if with_maps else "scores")
                under_way.append((slot, part))
            for slot, part in under_way:
                _collect(slot, part, maps, scores)
        return maps if with_maps else None, scores

    def _check(self, shape: tuple[int, ...]) -> None:
        expected = self._network.image_shape
        if len(shape) != 4 or shape[1:] != expected or not 0 < shape[0] <= self._batch[1]:
            raise DataError(
                f"got images of shape {shape}, expected (N,{','.join(map(str, expected))}) with "
                f"N up to {self._batch[1]}."
            )

    def _size_for(self, count: int) -> int:
        """Round up to a power of two within the graph's batch: each size is a captured graph."""
        smallest, largest = self._batch
        return max(smallest, min(largest, 1 << (count - 1).bit_length()))


def _collect(
    slot: Slot, part: slice, maps: NDArray[np.float32], scores: NDArray[np.float32]
) -> None:
    slot.collect(maps[part], scores[part])


def _on_gpu(array: Any) -> Tensor:
    try:
        tensor = (
            torch.as_tensor(array)
            if hasattr(array, "__cuda_array_interface__")
            else from_dlpack(array)
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
    """Read the bundle's graph onto the GPU.

    Raises:
        BackendError: torch sees no GPU, or the graph has what this engine does not know.
    """
    if not torch.cuda.is_available():
        raise BackendError(
            f"torch {torch.__version__} sees no GPU; install a torch with CUDA and its driver."
        )
    try:
        return TorchCudaEngine(source.model, source.batch)
    except RuntimeError as error:
        raise BackendError(
            f"torch {torch.__version__} cannot run the bundle's graph on the GPU "
            f"({str(error).splitlines()[0]}); check nvidia-smi, or choose another engine."
        ) from error
