"""A bundle's graph on a device: read, fused, and scheduled."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from stpm.runtime.backends.torch_cuda.fuse import fuse
from stpm.runtime.backends.torch_cuda.onnx_graph import fx_from_onnx
from stpm.runtime.backends.torch_cuda.operations import operations_on
from stpm.runtime.backends.torch_cuda.schedule import Schedule


class FusedNetwork:
    """Weights and steps; many slots run them at once.

    Attributes:
        image_shape: (height, width, channels) of the images.
        map_size: (height, width) of the maps.
        slower_because: why the Triton kernels are not used; "" where they are.
    """

    def __init__(self, content: bytes, device: torch.device) -> None:
        """Read a graph.

        Args:
            content: the bundle's ONNX file.
            device: to run on; on the processor torch's own functions stand for the kernels.

        Raises:
            BackendError: an operator of the graph is unknown.
        """
        module, self.image_shape, self.map_size = fx_from_onnx(content)
        operations, self.slower_because = operations_on(device)
        fuse(module, operations, self.image_shape[:2], self.map_size)
        for name, buffer in list(module.named_buffers()):
            layout = torch.channels_last if buffer.ndim == 4 else torch.contiguous_format
            module.register_buffer(name, buffer.to(device).contiguous(memory_format=layout))
        self.schedule = Schedule(module)

    @torch.no_grad()
    def score(
        self, images: Tensor, streams: Sequence[torch.cuda.Stream] = ()
    ) -> tuple[Tensor, Tensor]:
        """Score images uint8 (N,H,W,C): maps float32 (N,h,w), and scores (N,).

        Args:
            images: on the device.
            streams: see `Schedule.run`.
        """
        with exact_convolutions():
            maps, scores = self.schedule.run(images, streams)
        return maps, scores


def check_graph(content: bytes) -> None:
    """Raise BackendError for a graph that this engine does not know, on any machine."""
    FusedNetwork(content, torch.device("cpu"))


@contextmanager
def exact_convolutions() -> Iterator[None]:
    """Let cuDNN try its algorithms, and compute FP32 in FP32: by default torch rounds factors."""
    with torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=False):
        yield
