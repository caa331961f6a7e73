"""A function of indices in CUDA graphs: launching its kernels one by one takes longer than they."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

WARM_UP = 3
"""Runs before a capture, in which libraries set themselves up."""


@dataclass(frozen=True)
class _Captured:
    graph: torch.cuda.CUDAGraph
    index: Tensor
    result: Tensor


class Replay:
    """A function that is captured for each number of indices it is called with."""

    def __init__(
        self, function: Callable[[Tensor], Tensor], state: Callable[[], Sequence[Tensor]]
    ) -> None:
        """Prepare a function.

        Args:
            function: of an int64 tensor (N,) on the GPU, to a tensor there. It must not wait for
                the GPU nor copy from or to the host.
            state: the tensors that the function changes, which capturing leaves as they are.
        """
        self._function = function
        self._state = state
        self._captured: dict[int, _Captured] = {}

    def __call__(self, index: Tensor) -> Tensor:
        """Run the function; the next call overwrites the result."""
        if len(index) not in self._captured:
            self._captured[len(index)] = self._capture(index)
        captured = self._captured[len(index)]
        captured.index.copy_(index)
        captured.graph.replay()
        return captured.result

    def _capture(self, index: Tensor) -> _Captured:
        index = index.clone()
        # Detached: a graph of autograd that is kept alive would tie the capture to its stream.
        before = [tensor.detach().clone() for tensor in self._state()]
        aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(WARM_UP):
                self._function(index)
        torch.cuda.current_stream().wait_stream(aside)
        with torch.no_grad():
            for tensor, value in zip(self._state(), before, strict=True):
                tensor.copy_(value)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            result = self._function(index)
        return _Captured(graph, index, result)


@contextmanager
def repeatable_convolutions() -> Iterator[None]:
    """Compute the same bits every time, and FP32 in FP32: by default torch rounds its factors."""
    with torch.backends.cudnn.flags(
        enabled=True, benchmark=False, deterministic=True, allow_tf32=False
    ):
        yield
