"""The least time a network could take: its arithmetic, its traffic, and what the device can do."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from torch.utils.hooks import RemovableHandle

from stpm.train.methods import Network

MATRIX_SIDE = {"cuda": 8192, "cpu": 256}
"""Side of the matrices whose product measures arithmetic."""
COPY_BYTES = {"cuda": 1 << 30, "cpu": 1 << 22}
REPEATS = 10


@dataclass(frozen=True)
class Cost:
    """What one run of a batch must do at least.

    Attributes:
        flop: multiplications and additions of convolutions and matrix products.
        weight_bytes: read once a batch.
        activation_bytes: each convolution's input read and output written once.
    """

    flop: int
    weight_bytes: int
    activation_bytes: int

    def batch(self, count: int) -> Cost:
        """Return the cost of a batch from that of one image."""
        return Cost(self.flop * count, self.weight_bytes, self.activation_bytes * count)


@dataclass(frozen=True)
class Peak:
    """What a device was measured to do, in FP16 on a GPU: per second."""

    flop: float
    bytes: float

    def least_seconds(self, cost: Cost) -> float:
        """Return the roofline: arithmetic and traffic overlap, the longer decides."""
        traffic = cost.weight_bytes + cost.activation_bytes
        return max(cost.flop / self.flop, traffic / self.bytes)


def cost_of(model: Network, size: tuple[int, int], bytes_a_value: int) -> Cost:
    """Count what one image costs.

    Args:
        model: the network, on the processor.
        size: (height, width) of the network's input.
        bytes_a_value: 2 in half precision, 4 in FP32.
    """
    values = 0

    def count(_: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        nonlocal values
        values += inputs[0].numel() + output.numel()

    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    handles: list[RemovableHandle] = [m.register_forward_hook(count) for m in convolutions]
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model.features(torch.zeros(1, 3, *size))
    finally:
        for handle in handles:
            handle.remove()
    weights = sum(m.weight.numel() for m in convolutions)
    return Cost(counter.get_total_flops(), weights * bytes_a_value, values * bytes_a_value)


def measure_peak(device: str) -> Peak:
    """Measure matrix products (FP16 on a GPU) and copies: the fastest of several."""
    dtype = torch.float16 if device == "cuda" else torch.float32
    side = MATRIX_SIDE[device]
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in "ab")
    source = torch.zeros(COPY_BYTES[device], dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    product = min(_seconds(lambda: a @ b, device) for _ in range(REPEATS))
    copied = min(_seconds(lambda: target.copy_(source), device) for _ in range(REPEATS))
    return Peak(2 * side**3 / product, 2 * COPY_BYTES[device] / copied)


def _seconds(work: object, device: str) -> float:
    assert callable(work)
    start = time.perf_counter()
    work()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start
