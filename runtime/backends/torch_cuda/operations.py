"""The operations that the fusing pass puts into a graph, and which code computes them here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from stpm.runtime.backends.torch_cuda import reference
from stpm.runtime.backends.torch_cuda.reference import Layout, Tables


@dataclass(frozen=True)
class Operations:
    """Functions for the fused operations.

    Attributes:
        conv_relu: of x, weight, bias and the settings of `F.conv2d`: the positive part.
        conv_add_relu: of x, weight, bias, a summand of the result's shape, and the settings.
        normalise, max_pool, unit_distance, upsampled_product: as in `reference`.
    """

    conv_relu: Callable[..., Tensor]
    conv_add_relu: Callable[..., Tensor]
    normalise: Callable[[Tensor, Tensor, Tensor, torch.dtype, Layout], Tensor]
    max_pool: Callable[..., Tensor]
    unit_distance: Callable[[Tensor, Tensor, float], Tensor]
    upsampled_product: Callable[
        [Sequence[Tensor], Sequence[Tables], tuple[int, int]], tuple[Tensor, Tensor]
    ]


def _conv_relu(x: Tensor, weight: Tensor, bias: Tensor, **settings: Any) -> Tensor:
    return F.conv2d(x, weight, bias, **settings).relu()


def _conv_add_relu(x: Tensor, weight: Tensor, bias: Tensor, z: Tensor, **settings: Any) -> Tensor:
    return (F.conv2d(x, weight, bias, **settings) + z).relu()


def _cudnn_conv_relu(x: Tensor, weight: Tensor, bias: Tensor, **settings: Any) -> Tensor:
    return torch.cudnn_convolution_relu(x, weight, bias, **settings)


def _cudnn_conv_add_relu(
    x: Tensor, weight: Tensor, bias: Tensor, z: Tensor, **settings: Any
) -> Tensor:
    return torch.cudnn_convolution_add_relu(x, weight, z, 1.0, bias, **settings)


EAGER = Operations(
    _conv_relu,
    _conv_add_relu,
    reference.normalise,
    reference.max_pool,
    reference.unit_distance,
    reference.upsampled_product,
)
"""torch's own functions, on any device."""


def operations_on(device: torch.device) -> tuple[Operations, str]:
    """Choose the fastest that run on a device.

    Returns:
        The operations, and why the Triton kernels are not among them; "" where they are.
    """
    if device.type != "cuda":
        return EAGER, "they are for a GPU"
    plain = Operations(
        _cudnn_conv_relu,
        _cudnn_conv_add_relu,
        reference.normalise,
        reference.max_pool,
        reference.unit_distance,
        reference.upsampled_product,
    )
    try:
        from stpm.runtime.backends.torch_cuda import kernels

        kernels.try_out(device)
    except Exception as error:
        # An ImportError without Triton; its compilers' errors share no class but Exception.
        return plain, " ".join(str(error).split())[:200] or type(error).__name__
    return (
        Operations(
            _cudnn_conv_relu,
            _cudnn_conv_add_relu,
            kernels.normalise,
            kernels.max_pool,
            kernels.unit_distance,
            kernels.upsampled_product,
        ),
        "",
    )
