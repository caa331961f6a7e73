"""Triton kernels of what lies around the networks: normalisation, distances, scoring.

Each computes in FP32 what `reference` computes with torch's own functions. On a machine without a
GPU they run in Triton's interpreter (TRITON_INTERPRET=1).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from stpm.runtime.backends.torch_cuda import reference
from stpm.runtime.backends.torch_cuda.reference import Layout, Tables

PIXELS = 1024
"""Values a program of the element-wise kernels computes."""
REGISTERS = 4096
"""Values of a feature map that a program holds at once."""


@triton.jit
def _normalise(
    pixels,
    mean,
    std,
    out,
    count,
    height,
    width,
    rows,
    columns,
    top,
    left,
    block: tl.constexpr,
    side: tl.constexpr,
):
    """Write channels of four, in blocks of side x side pixels, of images with a border of zeros."""
    i = tl.program_id(0).to(tl.int64) * side + tl.arange(0, side)
    inside = i < count
    channel = (i % 4).to(tl.int32)
    within = (i // 4 % (block * block)).to(tl.int32)
    position = i // (4 * block * block)
    y = (position // columns % rows).to(tl.int32) * block + within // block - top
    x = (position % columns).to(tl.int32) * block + within % block - left
    image = position // columns // rows
    real = inside & (channel < 3) & (y >= 0) & (y < height) & (x >= 0) & (x < width)
    at = ((image * height + y) * width + x) * 3 + channel
    value = tl.load(pixels + at, mask=real, other=0).to(tl.float32)
    m = tl.load(mean + channel, mask=real, other=0.0)
    s = tl.load(std + channel, mask=real, other=1.0)
    tl.store(out + i, tl.div_rn(value - m, s).to(out.dtype.element_ty), mask=inside)


@triton.jit
def _max_pool(
    x,
    out,
    count,
    height,
    width,
    out_height,
    out_width,
    channels,
    kernel: tl.constexpr,
    stride: tl.constexpr,
    padding: tl.constexpr,
    rows: tl.constexpr,
    columns: tl.constexpr,
):
    position = tl.program_id(0).to(tl.int64) * rows + tl.arange(0, rows)
    channel = tl.program_id(1) * columns + tl.arange(0, columns)
    inside = (position < count)[:, None] & (channel < channels)[None, :]
    top = (position // out_width % out_height).to(tl.int32) * stride - padding
    left = (position % out_width).to(tl.int32) * stride - padding
    image = position // out_width // out_height
    result = tl.full((rows, columns), float("-inf"), tl.float32)
    for dy in tl.static_range(kernel):
        for dx in tl.static_range(kernel):
            y, x_ = top + dy, left + dx
            real = (y >= 0) & (y < height) & (x_ >= 0) & (x_ < width)
            at = ((image * height + y) * width + x_) * channels
            value = tl.load(
                x + at[:, None] + channel[None, :], mask=inside & real[:, None], other=float("-inf")
            )
            result = tl.maximum(result, value.to(tl.float32), propagate_nan=tl.PropagateNan.ALL)
    at_out = position[:, None] * channels + channel[None, :]
    tl.store(out + at_out, result.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _unit_distance(
    target,
    student,
    out,
    count,
    epsilon,
    channels: tl.constexpr,
    rows: tl.constexpr,
    columns: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64) * rows + tl.arange(0, rows)
    column = tl.arange(0, columns)
    first = row[:, None] * channels + column[None, :]
    inside = (row < count)[:, None]
    t_squares = tl.zeros((rows, columns), tl.float32)
    s_squares = tl.zeros((rows, columns), tl.float32)
    for start in tl.static_range(0, channels, columns):
        mask = inside & (start + column < channels)[None, :]
        t = tl.load(target + first + start, mask=mask, other=0.0).to(tl.float32)
        s = tl.load(student + first + start, mask=mask, other=0.0).to(tl.float32)
        t_squares += t * t
        s_squares += s * s
    # maximum(NaN, epsilon) must stay NaN.
    t_length = tl.sqrt_rn(tl.sum(t_squares, 1))
    s_length = tl.sqrt_rn(tl.sum(s_squares, 1))
    t_length = tl.where(t_length < epsilon, epsilon, t_length)[:, None]
    s_length = tl.where(s_length < epsilon, epsilon, s_length)[:, None]
    squares = tl.zeros((rows, columns), tl.float32)
    for start in tl.static_range(0, channels, columns):
        mask = inside & (start + column < channels)[None, :]
        t = tl.load(target + first + start, mask=mask, other=0.0).to(tl.float32)
        s = tl.load(student + first + start, mask=mask, other=0.0).to(tl.float32)
        difference = tl.div_rn(t, t_length) - tl.div_rn(s, s_length)
        squares += difference * difference
    tl.store(out + row, tl.sum(squares, 1), mask=row < count)


@triton.jit
def _sample(
    level,
    row_index,
    row_weights,
    column_index,
    column_weights,
    image,
    y,
    x,
    height,
    width,
    out_height,
    out_width,
    inside,
):
    """Interpolate a level (N,h,w) at output pixels: across, then down."""
    top = tl.load(row_index + y, mask=inside, other=0)
    left = tl.load(column_index + x, mask=inside, other=0)
    bottom = tl.minimum(top + 1, height - 1)
    right = tl.minimum(left + 1, width - 1)
    w_top = tl.load(row_weights + y, mask=inside, other=0.0)
    w_bottom = tl.load(row_weights + out_height + y, mask=inside, other=0.0)
    w_left = tl.load(column_weights + x, mask=inside, other=0.0)
    w_right = tl.load(column_weights + out_width + x, mask=inside, other=0.0)
    base = level + image * height * width
    a = tl.load(base + top * width + left, mask=inside, other=0.0)
    b = tl.load(base + top * width + right, mask=inside, other=0.0)
    c = tl.load(base + bottom * width + left, mask=inside, other=0.0)
    d = tl.load(base + bottom * width + right, mask=inside, other=0.0)
    return (a * w_left + b * w_right) * w_top + (c * w_left + d * w_right) * w_bottom


@triton.jit
def _product(
    levels,
    tables,
    sizes,
    maps,
    scores,
    out_height,
    out_width,
    count: tl.constexpr,
    block: tl.constexpr,
):
    image = tl.program_id(1).to(tl.int64)
    i = tl.program_id(0) * block + tl.arange(0, block)
    inside = i < out_height * out_width
    y = i // out_width
    x = i % out_width
    product = tl.full((block,), 1.0, tl.float32)
    for k in tl.static_range(count):
        product *= _sample(
            levels[k],
            tables[k][0],
            tables[k][1],
            tables[k][2],
            tables[k][3],
            image,
            y,
            x,
            sizes[k][0],
            sizes[k][1],
            out_height,
            out_width,
            inside,
        )
    tl.store(maps + image * out_height * out_width + i, product, mask=inside)
    # A maximum skips NaN; as infinity it is not overlooked in the score.
    finite = tl.where(product == product, product, float("inf"))
    tl.atomic_max(scores + image, tl.max(tl.where(inside, finite, 0.0), 0))


def normalise(
    images: Tensor, mean: Tensor, std: Tensor, dtype: torch.dtype, layout: Layout
) -> Tensor:
    """See `reference.normalise`."""
    n, height, width, _ = images.shape
    shape = (n, layout.rows, layout.columns, 4 * layout.block**2)
    out = torch.empty(shape, dtype=dtype, device=images.device)
    _normalise[(triton.cdiv(out.numel(), PIXELS),)](
        images.contiguous(),
        mean,
        std,
        out,
        out.numel(),
        height,
        width,
        layout.rows,
        layout.columns,
        layout.top,
        layout.left,
        layout.block,
        PIXELS,
    )
    return out.permute(0, 3, 1, 2)


def max_pool(x: Tensor, kernel: int, stride: int, padding: int, *, ceil_mode: bool) -> Tensor:
    """See `reference.max_pool`; torch's own takes five times as long with channels last."""
    x = x.contiguous(memory_format=torch.channels_last)
    n, channels, height, width = x.shape
    out_height, out_width = (
        _pooled(length, kernel, stride, padding, ceil_mode=ceil_mode) for length in (height, width)
    )
    out = torch.empty((n, out_height, out_width, channels), dtype=x.dtype, device=x.device)
    columns = min(triton.next_power_of_2(channels), 256)
    rows = PIXELS // columns
    count = n * out_height * out_width
    _max_pool[(triton.cdiv(count, rows), triton.cdiv(channels, columns))](
        x,
        out,
        count,
        height,
        width,
        out_height,
        out_width,
        channels,
        kernel,
        stride,
        padding,
        rows,
        columns,
    )
    return out.permute(0, 3, 1, 2)


def _pooled(length: int, kernel: int, stride: int, padding: int, *, ceil_mode: bool) -> int:
    """Count the windows along a side; torch's own answer, on the meta device, imports SymPy."""
    rest = length + 2 * padding - kernel
    if not ceil_mode:
        return rest // stride + 1
    count = -(-rest // stride) + 1
    # The last window has to begin inside the image or its left border.
    return count - 1 if (count - 1) * stride >= length + padding else count


def unit_distance(target: Tensor, student: Tensor, epsilon: float) -> Tensor:
    """See `reference.unit_distance`."""
    n, channels, height, width = target.shape
    target, student = (
        features.contiguous(memory_format=torch.channels_last) for features in (target, student)
    )
    out = torch.empty((n, 1, height, width), dtype=torch.float32, device=target.device)
    columns = min(triton.next_power_of_2(channels), 256)
    rows = max(1, REGISTERS // columns)
    grid = (triton.cdiv(out.numel(), rows),)
    _unit_distance[grid](target, student, out, out.numel(), epsilon, channels, rows, columns)
    return out


def upsampled_product(
    levels: Sequence[Tensor], tables: Sequence[Tables], size: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """See `reference.upsampled_product`; a NaN in a map makes its score infinite."""
    height, width = size
    n, device = len(levels[0]), levels[0].device
    maps = torch.empty((n, height, width), dtype=torch.float32, device=device)
    scores = torch.zeros(n, dtype=torch.float32, device=device)
    _product[(triton.cdiv(height * width, PIXELS), n)](
        tuple(level.contiguous() for level in levels),
        tuple(tables),
        tuple((level.shape[2], level.shape[3]) for level in levels),
        maps,
        scores,
        height,
        width,
        len(levels),
        PIXELS,
    )
    return maps, scores


def try_out(device: torch.device) -> None:
    """Compile and run each kernel once on a device.

    Raises:
        Exception: whatever Triton and its compilers raise, or RuntimeError for wrong numbers.
    """
    random = torch.Generator().manual_seed(0)
    images = torch.randint(256, (1, 4, 4, 3), generator=random, dtype=torch.uint8).to(device)
    mean, std = (torch.tensor(values, device=device) for values in ([120.0] * 3, [60.0] * 3))
    layout = Layout(block=2, top=1, left=1, rows=3, columns=3)
    features = [torch.rand(1, 8, 4, 4, generator=random).to(device) for _ in range(2)]
    found = reference.neighbours(torch.eye(4))
    assert found is not None
    tables = [tuple(table.to(device) for table in (*found, *found))]
    level = features[0][:, :1].contiguous()
    both: tuple[Any, Any] = (sys.modules[__name__], reference)
    pairs = (
        [operations.normalise(images, mean, std, torch.float32, layout) for operations in both],
        [operations.max_pool(features[0], 3, 2, 1, ceil_mode=False) for operations in both],
        [operations.unit_distance(*features, 1e-12) for operations in both],
        [operations.upsampled_product([level], tables, (4, 4))[0] for operations in both],
    )
    for ours, theirs in pairs:
        if not torch.allclose(ours, theirs, atol=1e-5):
            raise RuntimeError("a kernel computes other numbers than torch")
