"""Replay a function of tensors as one CUDA graph, in place of launching its kernels one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

WARM_UP_RUNS = 3
"""Before a capture: libraries choose their algorithms and allocate in the first runs."""

Body = Callable[..., Tensor]
State = Callable[[], Iterable[Tensor]]


class Recorder(Protocol):
    """How a function becomes something to replay."""

    def warm_up(self, body: Body, inputs: Sequence[Tensor]) -> None:
        """Run the function a few times."""
        ...

    def record(self, body: Body, inputs: Sequence[Tensor]) -> Recording:
        """Record the function without running it."""
        ...


@dataclass(frozen=True)
class Recording:
    """A recorded function.

    Attributes:
        inputs: read by `replay`; to be overwritten in place.
        output: overwritten by `replay`.
        replay: runs the function.
    """

    inputs: Sequence[Tensor]
    output: Tensor
    replay: Callable[[], None]


class CudaGraphs:
    """Records on the current GPU.

    Source: https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs
    """

    def __init__(self) -> None:
        self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]

    def warm_up(self, body: Body, inputs: Sequence[Tensor]) -> None:
        """Run on the stream that captures, as autograd remembers streams."""
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            for _ in range(WARM_UP_RUNS):
                body(*inputs)
        torch.cuda.current_stream().wait_stream(self._stream)

    def record(self, body: Body, inputs: Sequence[Tensor]) -> Recording:
        """Capture a graph with memory of its own."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self._stream):
            output = body(*inputs)
        return Recording(inputs, output, graph.replay)


class Replayed:
    """A function that is recorded once for each shape of its inputs, and replayed.

    On a GPU the function may neither wait for the device nor copy from the host, and it returns a
    detached tensor.
    """

    def __init__(self, body: Body, recorder: Recorder, state: State = tuple) -> None:
        """Record nothing yet.

        Args:
            body: takes tensors on the device and returns one.
            recorder: of the device.
            state: gives the tensors that a run of the body changes in place. They are as they were
                after the warm-up; those that came into being in it are zero, which is where
                optimisers begin.
        """
        self._body = body
        self._recorder = recorder
        self._state = state
        self._recordings: dict[tuple[torch.Size, ...], Recording] = {}

    def knows(self, *inputs: Tensor) -> bool:
        """Whether the function is recorded for inputs of these shapes."""
        return _shapes(inputs) in self._recordings

    def __call__(self, *inputs: Tensor) -> Tensor:
        """Run the function; the result is the caller's own."""
        if not self.knows(*inputs):
            self._recordings[_shapes(inputs)] = self._record(inputs)
        recording = self._recordings[_shapes(inputs)]
        for mine, given in zip(recording.inputs, inputs, strict=True):
            mine.copy_(given)
        recording.replay()
        return recording.output.clone()

    def _record(self, inputs: Sequence[Tensor]) -> Recording:
        own = [given.clone() for given in inputs]
        with unchanged(self._state):
            self._recorder.warm_up(self._body, own)
        return self._recorder.record(self._body, own)


@contextmanager
def repeatable_convolutions() -> Iterator[None]:
    """Compute the same bits every time, and FP32 in FP32: by default torch rounds its factors."""
    with torch.backends.cudnn.flags(
        enabled=True, benchmark=False, deterministic=True, allow_tf32=False
    ):
        yield


def _shapes(inputs: Sequence[Tensor]) -> tuple[torch.Size, ...]:
    return tuple(given.shape for given in inputs)


@contextmanager
def unchanged(state: State) -> Iterator[None]:
    """Undo what runs inside; tensors that are new afterwards become zero.

    Args:
        state: gives the same tensor objects each time, and new ones as they come into being.
    """
    before = [(tensor, tensor.detach().clone()) for tensor in state()]
    yield
    known = {id(tensor) for tensor, _ in before}
    with torch.no_grad():
        for tensor, value in before:
            tensor.copy_(value)
        for tensor in state():
            if id(tensor) not in known:
                tensor.zero_()
