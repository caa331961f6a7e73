"""Graph passes that put one fused operation in the place of several: faster, the same numbers."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor, fx
from torch.nn import functional as F

from stpm.runtime.backends.torch_cuda import operators
from stpm.runtime.backends.torch_cuda.operations import Operations
from stpm.runtime.backends.torch_cuda.reference import Layout, neighbours

Node = Any
"""A node, whose arguments torch types as anything that an argument can be."""


def fuse(
    module: fx.GraphModule,
    operations: Operations,
    image_size: tuple[int, ...],
    network_size: tuple[int, ...],
) -> None:
    """Fuse all that is known, in place.

    Convolution, bias, summand and ReLU; the normalisation of the image; maxima of square windows;
    the distance of two unit feature vectors; the product of the upsampled distances with its
    maximum. A graph or a part of one that looks otherwise stays as it is.

    Args:
        module: from `fx_from_onnx`.
        operations: to put in.
        image_size: (height, width) of the images.
        network_size: the same of the normalised image where the graph resizes.
    """
    _fuse_convolutions(module, operations)
    _fuse_normalisation(module, operations, image_size, network_size)
    _fuse_pooling(module, operations)
    _fuse_distances(module, operations)
    _fuse_product(module, operations)
    module.graph.eliminate_dead_code()
    module.graph.lint()


def _fuse_convolutions(module: fx.GraphModule, operations: Operations) -> None:
    for relu in _calls(module, torch.relu):
        inner = relu.args[0]
        if _is(inner, operators.conv) and len(inner.users) == 1:
            arguments = (*inner.args[:2], _bias(module, inner))
            _replace(module, relu, operations.conv_relu, arguments, inner.kwargs)
        elif _is(inner, operator.add) and len(inner.users) == 1:
            _fuse_sum(module, relu, inner, operations)


def _fuse_sum(module: fx.GraphModule, relu: Node, total: Node, operations: Operations) -> None:
    first, second = total.args
    for conv, summand in ((first, second), (second, first)):
        if not (_is(conv, operators.conv) and len(conv.users) == 1 and conv is not summand):
            continue
        bias = _bias(module, conv)
        if _is(summand, operators.conv) and len(summand.users) == 1:
            # Its bias joins the sum's: alone it would cost a kernel.
            joined = _value(module, bias) + _value(module, _bias(module, summand))
            with module.graph.inserting_before(relu):
                bias = _constant(module, joined)
            summand.args = summand.args[:2]
        arguments = (*conv.args[:2], bias, summand)
        _replace(module, relu, operations.conv_add_relu, arguments, conv.kwargs)
        return


def _bias(module: fx.GraphModule, conv: Node) -> Node:
    """Return a convolution's bias; where it has none, zeros."""
    if len(conv.args) == 3:
        return conv.args[2]
    weight = _value(module, conv.args[1])
    with module.graph.inserting_before(conv):
        return _constant(module, weight.new_zeros(len(weight)))


def _fuse_normalisation(
    module: fx.GraphModule,
    operations: Operations,
    image_size: tuple[int, ...],
    network_size: tuple[int, ...],
) -> None:
    for transpose in _calls(module, operators.permute):
        division = transpose.args[0]
        if transpose.kwargs["dims"] != (0, 3, 1, 2) or not _is(division, operator.truediv):
            continue
        difference, std = division.args
        if not (_is(difference, operator.sub) and _is_constant(std)):
            continue
        pixels, mean = difference.args
        if not _is_constant(mean) or _value(module, mean).numel() != 3:
            continue
        result, dtype = transpose, torch.float32
        users = list(transpose.users)
        if len(users) == 1 and _is(users[0], operators.cast):
            result, dtype = users[0], users[0].kwargs["dtype"]
        size = network_size
        if _is(pixels, operators.cast) and pixels.args[0].op == "placeholder":
            pixels, size = pixels.args[0], image_size
        layout = _lay_out(module, result, operations, size)
        if layout is not None:
            _replace(module, result, operations.normalise, (pixels, mean, std, dtype, layout), {})


def _lay_out(
    module: fx.GraphModule, image: Node, operations: Operations, size: tuple[int, ...]
) -> Layout | None:
    """Let the convolutions of an image take it in blocks; None if anything else takes it."""
    kinds = (operators.conv, operations.conv_relu)
    users = list(image.users)
    if not all(_is(user, *kinds) and user.args[0] is image for user in users):
        return None
    settings = users[0].kwargs
    stride, padding = settings["stride"], settings["padding"]
    kernel = _value(module, users[0].args[1]).shape[2:]
    if any(
        user.kwargs != settings or _value(module, user.args[1]).shape[2:] != kernel
        for user in users
    ):
        return None
    if settings["groups"] != 1 or settings["dilation"] != (1, 1) or stride[0] != stride[1]:
        return None
    block = stride[0]
    before = [-(-p // block) * block for p in padding]
    blocks = [-(-(k + b - p) // block) for k, b, p in zip(kernel, before, padding, strict=True)]
    rows, columns = (
        (side + 2 * p - k) // block + n
        for side, p, k, n in zip(size, padding, kernel, blocks, strict=True)
    )
    layout = Layout(block, before[0], before[1], rows, columns)
    for user in users:
        shift = [b - p for b, p in zip(before, padding, strict=True)]
        weight = _blocked(_value(module, user.args[1]), block, shift, blocks)
        with module.graph.inserting_before(user):
            user.update_arg(1, _constant(module, weight))
        user.kwargs = {**settings, "stride": (1, 1), "padding": (0, 0)}
    return layout


def _blocked(weight: Tensor, block: int, shift: list[int], blocks: list[int]) -> Tensor:
    """Arrange filters (C,3,h,w) as `Layout` arranges the image, after `shift` rows and columns."""
    after = [
        n * block - s - side for n, s, side in zip(blocks, shift, weight.shape[2:], strict=True)
    ]
    framed = F.pad(weight, (shift[1], after[1], shift[0], after[0], 0, 1))
    parts = framed.reshape(len(weight), 4, blocks[0], block, blocks[1], block)
    return parts.permute(0, 3, 5, 1, 2, 4).reshape(len(weight), -1, *blocks)


def _fuse_pooling(module: fx.GraphModule, operations: Operations) -> None:
    for pool in _calls(module, operators.max_pool):
        sides = [pool.kwargs[name] for name in ("kernel_size", "stride", "padding")]
        if "dilation" in pool.kwargs or any(rows != columns for rows, columns in sides):
            continue
        settings = {"ceil_mode": pool.kwargs["ceil_mode"]}
        arguments = (pool.args[0], *(rows for rows, _ in sides))
        _replace(module, pool, operations.max_pool, arguments, settings)


def _fuse_distances(module: fx.GraphModule, operations: Operations) -> None:
    for total in _calls(module, torch.sum):
        square = total.args[0]
        if total.kwargs != {"dim": (1,), "keepdim": True} or not _is(square, operator.mul):
            continue
        difference = square.args[0]
        if square.args[1] is not difference or not _is(difference, operator.sub):
            continue
        units = [_unit(node) for node in difference.args]
        if None in units or units[0][1] != units[1][1]:
            continue
        (target, epsilon), (student, _) = units
        made = _replace(module, total, operations.unit_distance, (target, student, epsilon), {})
        made.meta["scope"] = "distance"


def _unit(node: Any) -> Any:
    """Return the features and the smallest length of what scales vectors to length one."""
    if not _is(node, operator.truediv):
        return None
    features, length = node.args
    if not (_is(length, torch.clamp) and length.kwargs["max"] is None):
        return None
    norm = length.args[0]
    if not _is(norm, operators.vector_norm) or norm.args[0] is not features:
        return None
    if norm.kwargs != {"dim": (1,), "keepdim": True}:
        return None
    if _is(features, operators.cast) and features.kwargs["dtype"] is torch.float32:
        features = features.args[0]
    return features, length.kwargs["min"]


def _fuse_product(module: fx.GraphModule, operations: Operations) -> None:
    for maximum in _calls(module, torch.amax):
        squeezed = maximum.args[0]
        if maximum.kwargs != {"dim": (1, 2), "keepdim": False}:
            continue
        if not (_is(squeezed, torch.squeeze) and squeezed.kwargs["dim"] == (1,)):
            continue
        factors = [_upsampling(module, node) for node in _factors(squeezed.args[0])]
        # The kernel's maximum begins at zero, which no squared distance is below.
        if None in factors or not all(
            _is(level, operations.unit_distance) for level, _, _ in factors
        ):
            continue
        with module.graph.inserting_before(squeezed):
            levels = tuple(level for level, _, _ in factors)
            tables = tuple(
                tuple(_constant(module, table) for table in found) for _, found, _ in factors
            )
            both = module.graph.call_function(
                operations.upsampled_product, (levels, tables, factors[0][2])
            )
            both.meta["scope"] = ""
            for node, index in ((squeezed, 0), (maximum, 1)):
                _replace(module, node, operator.getitem, (both, index), {})


def _factors(node: Node) -> list[Node]:
    if _is(node, operator.mul):
        return [factor for side in node.args for factor in _factors(side)]
    return [node]


def _upsampling(module: fx.GraphModule, node: Any) -> Any:
    """Return the level, the tables and the output's size of a matrix upsampling."""
    matrices = []
    for dims in ((0, 3, 1, 2), (0, 2, 1, 3)):
        if not (_is(node, operators.permute) and node.kwargs["dims"] == dims):
            return None
        product = node.args[0]
        if not (_is(product, operators.conv) and len(product.args) == 2):
            return None
        matrices.append(_value(module, product.args[1])[:, :, 0, 0])
        node = product.args[0]
    if not (_is(node, operators.permute) and node.kwargs["dims"] == (0, 3, 2, 1)):
        return None
    found = [neighbours(matrix) for matrix in matrices]
    if None in found:
        return None
    tables = tuple(table for pair in found if pair is not None for table in pair)
    return node.args[0], tables, (len(matrices[0]), len(matrices[1]))


def _calls(module: fx.GraphModule, *functions: Any) -> list[Node]:
    return [node for node in module.graph.nodes if _is(node, *functions)]


def _is(node: Any, *functions: Any) -> bool:
    return isinstance(node, fx.Node) and node.op == "call_function" and node.target in functions


def _is_constant(node: Any) -> bool:
    return isinstance(node, fx.Node) and node.op == "get_attr"


def _value(module: fx.GraphModule, node: Any) -> Tensor:
    return module.get_buffer(node.target)


def _constant(module: fx.GraphModule, value: Tensor) -> Node:
    name = f"constant_of_fusing_{len(list(module.buffers()))}"
    module.register_buffer(name, value)
    node = module.graph.get_attr(name)
    node.meta["scope"] = ""
    return node


def _replace(
    module: fx.GraphModule, node: Node, function: Any, arguments: Any, settings: Any
) -> Node:
    with module.graph.inserting_before(node):
        made = module.graph.call_function(function, tuple(arguments), dict(settings))
    made.meta["scope"] = node.meta["scope"]
    node.replace_all_uses_with(made)
    module.graph.erase_node(node)
    return made
