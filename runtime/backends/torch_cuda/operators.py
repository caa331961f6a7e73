"""ONNX operators as torch functions: those that the deployment graphs of stpm use."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from stpm.runtime.errors import BackendError

DTYPES = {1: torch.float32, 2: torch.uint8, 7: torch.int64, 10: torch.float16, 16: torch.bfloat16}
"""torch's types by ONNX's numbers (onnx.TensorProto.DataType)."""

Attributes = Mapping[str, Any]
Constants = Sequence[Tensor | None]
"""An operator's inputs that the file fixes, None where it computes them."""
Call = tuple[Callable[..., Any], dict[str, Any]]
"""A torch function of an operator's computed tensors, and its keyword arguments."""


def conv(x: Tensor, weight: Tensor, bias: Tensor | None = None, **settings: Any) -> Tensor:
    """Convolve (N,C,H,W); `settings` are those of `F.conv2d`."""
    return F.conv2d(x, weight, bias, **settings)


def conv_after_padding(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    widths: tuple[int, ...],
    **settings: Any,
) -> Tensor:
    """Pad the last axes with zeros as `F.pad` takes `widths`, then convolve."""
    return F.conv2d(F.pad(x, widths), weight, bias, **settings)


def max_pool(x: Tensor, **settings: Any) -> Tensor:
    """Take maxima over windows of (N,C,H,W); `settings` are those of `F.max_pool2d`."""
    pooled: Tensor = F.max_pool2d(x, **settings)
    return pooled


def average_pool(x: Tensor, **settings: Any) -> Tensor:
    """Average windows of (N,C,H,W); `settings` are those of `F.avg_pool2d`."""
    return F.avg_pool2d(x, **settings)


def batch_norm(
    x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, *, eps: float
) -> Tensor:
    """Normalise (N,C,H,W) with fixed statistics."""
    return F.batch_norm(x, mean, variance, scale, bias, eps=eps)


def cast(x: Tensor, *, dtype: torch.dtype) -> Tensor:
    """Convert to another type."""
    return x.to(dtype)


def concat(*tensors: Tensor, dim: int) -> Tensor:
    """Join tensors along an axis."""
    return torch.cat(tensors, dim)


def gather(x: Tensor, index: Tensor, *, dim: int) -> Tensor:
    """Select along an axis by a vector of indices."""
    return x.index_select(dim, index)


def permute(x: Tensor, *, dims: tuple[int, ...]) -> Tensor:
    """Reorder the axes."""
    return x.permute(dims)


def vector_norm(x: Tensor, *, dim: tuple[int, ...], keepdim: bool) -> Tensor:
    """Euclidean length along axes."""
    length: Tensor = torch.linalg.vector_norm(x, dim=dim, keepdim=keepdim)
    return length


def highest(x: Tensor, *, k: int, dim: int) -> Tensor:
    """Return the k highest values along an axis, falling."""
    return x.topk(k, dim).values


def reshape(x: Tensor, *, shape: tuple[int, ...]) -> Tensor:
    """Give the elements another shape, in which 0 takes an axis over and -1 what is left."""
    return x.reshape([x.shape[i] if length == 0 else length for i, length in enumerate(shape)])


def unsqueeze(x: Tensor, *, dim: tuple[int, ...]) -> Tensor:
    """Insert axes of length one, named by their places in the result."""
    for axis in sorted(dim):
        x = x.unsqueeze(axis)
    return x


def pad(x: Tensor, *, widths: tuple[int, ...], mode: str, value: float) -> Tensor:
    """Pad the last axes; `widths` as `F.pad` takes them."""
    return F.pad(x, widths, mode, value if mode == "constant" else None)


def torch_call(kind: str, attributes: Attributes, constants: Constants) -> Call:
    """Translate one operator.

    Args:
        kind: ONNX's name of the operator.
        attributes: by name, plain values.
        constants: of its inputs.

    Raises:
        BackendError: this engine does not know the operator or the form of it.
    """
    if kind in SIMPLE:
        return SIMPLE[kind], {}
    if kind not in TRANSLATED:
        raise BackendError(
            f"the engine torch-cuda does not support the ONNX operator {kind}, which this "
            "graph uses; choose another engine."
        )
    return TRANSLATED[kind](attributes, constants)


def _conv(attributes: Attributes, _: Constants) -> Call:
    top, left, bottom, right = attributes.get("pads", (0, 0, 0, 0))
    uneven = (top, left) != (bottom, right)
    settings = _window(dict(attributes, pads=(0, 0, 0, 0)) if uneven else attributes)
    settings["groups"] = attributes.get("group", 1)
    settings.setdefault("dilation", (1, 1))
    if uneven:
        return conv_after_padding, settings | {"widths": (left, right, top, bottom)}
    return conv, settings


def _max_pool(attributes: Attributes, _: Constants) -> Call:
    return max_pool, _pooling(attributes)


def _average_pool(attributes: Attributes, _: Constants) -> Call:
    counted = bool(attributes.get("count_include_pad", 0))
    return average_pool, _pooling(attributes) | {"count_include_pad": counted}


def _pooling(attributes: Attributes) -> dict[str, Any]:
    kernel = tuple(attributes["kernel_shape"])
    ceil = bool(attributes.get("ceil_mode", 0))
    return _window(attributes) | {"kernel_size": kernel, "ceil_mode": ceil}


def _window(attributes: Attributes) -> dict[str, Any]:
    pads = list(attributes.get("pads", (0, 0, 0, 0)))
    if pads[:2] != pads[2:] or attributes.get("auto_pad", "NOTSET") != "NOTSET":
        raise BackendError(
            "the engine torch-cuda supports only equal padding on both sides, got pads "
            f"{pads}; choose another engine."
        )
    settings = {"stride": tuple(attributes.get("strides", (1, 1))), "padding": tuple(pads[:2])}
    if tuple(attributes.get("dilations", (1, 1))) != (1, 1):
        settings["dilation"] = tuple(attributes["dilations"])
    return settings


def _batch_norm(attributes: Attributes, _: Constants) -> Call:
    return batch_norm, {"eps": attributes.get("epsilon", 1e-5)}


def _cast(attributes: Attributes, _: Constants) -> Call:
    if attributes["to"] not in DTYPES:
        raise BackendError(
            f"the engine torch-cuda does not support the ONNX type {attributes['to']}, which "
            "this graph uses; choose another engine."
        )
    return cast, {"dtype": DTYPES[attributes["to"]]}


def _clip(_: Attributes, constants: Constants) -> Call:
    low, high = (_number(c) for c in (*constants[1:], None, None)[:2])
    return torch.clamp, {"min": low, "max": high}


def _reduction(
    function: Callable[..., Tensor],
) -> Callable[[Attributes, Constants], Call]:
    def translate(attributes: Attributes, constants: Constants) -> Call:
        keep = bool(attributes.get("keepdims", 1))
        return function, {"dim": _integers(constants[1]), "keepdim": keep}

    return translate


def _top_k(attributes: Attributes, constants: Constants) -> Call:
    if not attributes.get("largest", 1):
        raise BackendError(
            "the engine torch-cuda supports only TopK with the highest values, got the "
            "lowest; choose another engine."
        )
    (count,) = _integers(constants[1])
    return highest, {"k": count, "dim": attributes.get("axis", -1)}


def _depth_to_space(attributes: Attributes, _: Constants) -> Call:
    if attributes.get("mode", "DCR") != "CRD":
        raise BackendError(
            "the engine torch-cuda supports only DepthToSpace in mode CRD, got another "
            "mode; choose another engine."
        )
    return F.pixel_shuffle, {"upscale_factor": attributes["blocksize"]}


def _squeeze(_: Attributes, constants: Constants) -> Call:
    return torch.squeeze, {"dim": _integers(constants[1])}


def _unsqueeze(_: Attributes, constants: Constants) -> Call:
    return unsqueeze, {"dim": _integers(constants[1])}


def _pad(attributes: Attributes, constants: Constants) -> Call:
    pads = _integers(constants[1])
    axes = len(pads) // 2
    pairs = [(pads[axis], pads[axis + axes]) for axis in reversed(range(axes))]
    while pairs and pairs[-1] == (0, 0):
        pairs.pop()  # reflection is for the last axes alone
    mode = {"edge": "replicate"}.get(attributes.get("mode", "constant"), attributes.get("mode"))
    value = _number(constants[2]) if len(constants) > 2 else None
    widths = tuple(width for pair in pairs for width in pair)
    return pad, {"widths": widths, "mode": mode or "constant", "value": value or 0.0}


def _integers(constant: Tensor | None) -> tuple[int, ...]:
    if constant is None:
        raise BackendError(
            "the engine torch-cuda supports only constant axes, got axes that the graph "
            "computes; choose another engine."
        )
    return tuple(int(value) for value in constant.reshape(-1).tolist())


def _number(constant: Tensor | None) -> float | None:
    return None if constant is None else float(constant)


SIMPLE: dict[str, Callable[..., Any]] = {
    "Add": operator.add,
    "Sub": operator.sub,
    "Mul": operator.mul,
    "Div": operator.truediv,
    "Pow": operator.pow,
    "Relu": torch.relu,
    "Floor": torch.floor,
    "MatMul": torch.matmul,
}
"""Functions of computed tensors and constants alone."""
TRANSLATED: dict[str, Callable[[Attributes, Constants], Call]] = {
    "Conv": _conv,
    "MaxPool": _max_pool,
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_norm,
    "Cast": _cast,
    "Clip": _clip,
    "Concat": lambda attributes, _: (concat, {"dim": attributes["axis"]}),
    "Gather": lambda attributes, _: (gather, {"dim": attributes.get("axis", 0)}),
    "LeakyRelu": lambda attributes, _: (
        F.leaky_relu,
        {"negative_slope": attributes.get("alpha", 0.01)},
    ),
    "Transpose": lambda attributes, _: (permute, {"dims": tuple(attributes["perm"])}),
    "ReduceL2": _reduction(vector_norm),
    "ReduceSum": _reduction(torch.sum),
    "ReduceMean": _reduction(torch.mean),
    "ReduceMax": _reduction(torch.amax),
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Pad": _pad,
    "Reshape": lambda _, constants: (reshape, {"shape": _integers(constants[1])}),
    "TopK": _top_k,
    "DepthToSpace": _depth_to_space,
}
FROM_CONSTANTS = {"Clip", "Squeeze", "Unsqueeze", "Pad", "Reshape", "TopK"}.union(
    name for name in TRANSLATED if name.startswith("Reduce")
)
"""Operators of one tensor, whose other inputs become keyword arguments."""
