"""A bundle's ONNX graph as a torch.fx graph: the same nodes, with the file's constants."""

from __future__ import annotations

from typing import Any

import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, fx

from stpm.runtime.backends.torch_cuda.operators import FROM_CONSTANTS, torch_call
from stpm.runtime.errors import BackendError

SCOPES = ("teacher", "student")
"""Parts of a graph that run side by side; a node's name begins with its part.

A student of `stpm-train --share-to` waits for the teacher's first layers.
"""


def fx_from_onnx(content: bytes) -> tuple[fx.GraphModule, tuple[int, ...], tuple[int, ...]]:
    """Read an ONNX file.

    Args:
        content: of the file; its nodes are in the order of their execution, as ONNX demands.

    Returns:
        A module from images to the file's outputs, a tuple; (height, width, channels) of the
        images, and (height, width) of the maps. Constants are buffers; each node's
        `meta["scope"]` is the part of `SCOPES` that it belongs to, or "".

    Raises:
        BackendError: it is no ONNX file, or an operator is unknown.
    """
    try:
        model = onnx.load_from_string(content).graph
    except Exception as error:
        # protobuf's errors share no class but Exception.
        raise BackendError(
            f"the bundle's graph cannot be read as ONNX ({error}); export again."
        ) from error
    root, graph = torch.nn.Module(), fx.Graph()
    constants = {c.name: _tensor(c) for c in model.initializer}
    values: dict[str, fx.Node] = {i.name: graph.placeholder(i.name) for i in model.input}
    for node in model.node:
        _append(node, graph, root, constants, values)
    graph.output(tuple(values[output.name] for output in model.output))
    image_shape, map_size = (_sides(value) for value in (model.input[0], model.output[0]))
    return fx.GraphModule(root, graph), image_shape, map_size


def _append(
    node: onnx.NodeProto,
    graph: fx.Graph,
    root: torch.nn.Module,
    constants: dict[str, Tensor],
    values: dict[str, fx.Node],
) -> None:
    attributes = {a.name: _plain(onnx.helper.get_attribute_value(a)) for a in node.attribute}
    if node.op_type == "Constant":
        constants[node.output[0]] = _tensor(attributes["value"])
        return
    function, settings = torch_call(
        node.op_type, attributes, [constants.get(name) for name in node.input]
    )
    tensors = node.input[:1] if node.op_type in FROM_CONSTANTS else node.input
    arguments = tuple(
        values[name] if name in values else _constant(name, graph, root, constants, values)
        for name in tensors
        if name
    )
    made = graph.call_function(function, arguments, settings)
    scope = node.name.partition("/")[0]
    made.meta["scope"] = scope if scope in SCOPES else ""
    values[node.output[0]] = made


def _constant(
    name: str,
    graph: fx.Graph,
    root: torch.nn.Module,
    constants: dict[str, Tensor],
    values: dict[str, fx.Node],
) -> fx.Node:
    if name not in constants:
        raise BackendError(f"the bundle's graph lacks the value {name!r}; export again.")
    attribute = f"constant_{len(values)}"
    root.register_buffer(attribute, constants[name])
    node = graph.get_attr(attribute)
    node.meta["scope"] = ""
    values[name] = node
    return node


def _sides(value: onnx.ValueInfoProto) -> tuple[int, ...]:
    """Return a tensor's shape without the batch."""
    return tuple(axis.dim_value for axis in value.type.tensor_type.shape.dim)[1:]


def _plain(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else value


def _tensor(proto: onnx.TensorProto) -> Tensor:
    if proto.data_type == onnx.TensorProto.BFLOAT16:  # NumPy has no such type
        bits = numpy_helper.to_array(proto).view("int16").copy()
        return torch.from_numpy(bits).view(torch.bfloat16)
    return torch.from_numpy(numpy_helper.to_array(proto).copy())
