"""Buffers and captured CUDA graphs for one batch in flight."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stpm.runtime.backends.torch_cuda.network import FusedNetwork
from stpm.runtime.backends.torch_cuda.schedule import STREAM_COUNT

Copies = Literal["none", "scores", "maps"]
"""What a graph copies: nothing; the images in and the scores out; these and the maps."""
_CAPTURING = threading.Lock()
"""One at a time: cuDNN's search is switched for the whole process."""


@dataclass(frozen=True)
class _Buffers:
    """What the graphs of one batch size read and write; `staged` and `host_` are page-locked."""

    staged: Tensor
    pixels: Tensor
    host_maps: Tensor
    host_scores: Tensor


@dataclass(frozen=True)
class _Recorded:
    """A captured graph and its results on the GPU."""

    graph: torch.cuda.CUDAGraph
    maps: Tensor
    scores: Tensor


class Slot:
    """A batch in flight: `enqueue` and then `collect`, or `run_on_device`; one thread at a time."""

    def __init__(self, network: FusedNetwork) -> None:
        self._network = network
        self._main, *self._side = _streams(STREAM_COUNT)
        self._memory = torch.cuda.graph_pool_handle()
        self._buffers: dict[int, _Buffers] = {}
        self._recorded: dict[tuple[int, Copies], _Recorded] = {}
        self._in_flight: tuple[int, int, Copies] | None = None

    def enqueue(self, images: NDArray[np.uint8], size: int, copies: Copies) -> None:
        """Begin to score images (N,H,W,C) with the graph for `size` of them, N or more."""
        recorded, count = self._graph(size, copies), len(images)
        self._main.synchronize()  # what failed before may still be reading the buffer
        self._buffers[size].staged[:count].copy_(torch.from_numpy(images))
        with torch.cuda.stream(self._main):
            recorded.graph.replay()
        self._in_flight = size, count, copies

    def collect(self, maps: NDArray[np.float32], scores: NDArray[np.float32]) -> None:
        """Wait for what was begun, and copy it into maps, if they were asked for, and scores.

        Of a slot without a batch in flight nothing is copied.
        """
        if self._in_flight is None:
            return
        size, count, copies = self._in_flight
        self._in_flight = None
        self._main.synchronize()
        if copies == "maps":
            maps[:] = self._buffers[size].host_maps[:count].numpy()
        scores[:] = self._buffers[size].host_scores[:count].numpy()

    def run_on_device(self, images: Tensor, size: int, maps: Tensor, scores: Tensor) -> None:
        """Score images that lie on the GPU into maps and scores there; done when it returns."""
        recorded, count = self._graph(size, "none"), len(images)
        self._main.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._main):
            self._buffers[size].pixels[:count].copy_(images)
            recorded.graph.replay()
            maps.copy_(recorded.maps[:count])
            scores.copy_(recorded.scores[:count])
        self._main.synchronize()

    def replay_seconds(self, size: int) -> float:
        """Time one replay between two events on the GPU, without copies or the host's share."""
        graph = self._graph(size, "none").graph
        before, after = _events(2)
        with torch.cuda.stream(self._main):
            before.record()
            graph.replay()
            after.record()
        after.synchronize()
        return float(before.elapsed_time(after)) / 1e3

    def _graph(self, size: int, copies: Copies) -> _Recorded:
        if (size, copies) not in self._recorded:
            with _CAPTURING:
                self._recorded[size, copies] = self._record(size, copies)
        return self._recorded[size, copies]

    def _record(self, size: int, copies: Copies) -> _Recorded:
        if size not in self._buffers:
            self._buffers[size] = self._warm_up(size)
        buffers, graph = self._buffers[size], torch.cuda.CUDAGraph()
        # Thread-local: what other threads allocate meanwhile must not break the capture.
        with torch.cuda.graph(
            graph, pool=self._memory, stream=self._main, capture_error_mode="thread_local"
        ):
            if copies != "none":
                buffers.pixels.copy_(buffers.staged, non_blocking=True)
            maps, scores = self._network.score(buffers.pixels, self._side)
            if copies == "maps":
                buffers.host_maps.copy_(maps, non_blocking=True)
            if copies != "none":
                buffers.host_scores.copy_(scores, non_blocking=True)
        return _Recorded(graph, maps, scores)

    def _warm_up(self, size: int) -> _Buffers:
        """Load kernels and choose algorithms before anything is captured."""
        shape = (size, *self._network.image_shape)
        pixels = torch.zeros(shape, dtype=torch.uint8, device="cuda")
        torch.cuda.synchronize()
        with torch.cuda.stream(self._main):
            maps, scores = self._network.score(pixels, self._side)
        torch.cuda.synchronize()
        staged = torch.zeros(shape, dtype=torch.uint8, pin_memory=True)
        host_maps, host_scores = (
            torch.empty(made.shape, dtype=made.dtype, pin_memory=True) for made in (maps, scores)
        )
        return _Buffers(staged, pixels, host_maps, host_scores)


def _streams(count: int) -> list[torch.cuda.Stream]:
    return [torch.cuda.Stream() for _ in range(count)]  # type: ignore[no-untyped-call]


def _events(count: int) -> list[torch.cuda.Event]:
    return [torch.cuda.Event(enable_timing=True) for _ in range(count)]  # type: ignore[no-untyped-call]
