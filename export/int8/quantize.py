"""INT8: convolutions of quantised inputs and weights; what lies between them stays FP32."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.onnx.ops
from torch import Tensor, nn
from torch.nn import functional

from stpm.export.weights import fold_batch_norm
from stpm.train.methods import Network, Normalise

WEIGHT_LIMIT = 127
"""Weights are rounded to whole numbers from -127 to 127 times a scale."""
INPUT_LIMIT = 255
"""Inputs are rounded to whole numbers from 0 to 255, less a zero point, times a scale."""
SMALLEST_SCALE = 1e-9
"""A filter of zeros would have a scale of zero."""
DAMPING = 0.01
"""Added to each input's own curvature, as in GPTQ, so that it has an inverse."""
PATCHES = 1 << 13
"""Patches of a convolution's inputs that its weights are rounded for."""
BLOCK = 128
"""Weights of a filter that are rounded before the rest of it is told."""

ConvHook = Callable[[str, nn.Conv2d, Tensor, Tensor], Tensor | None]
"""Takes a convolution's name, itself, its inputs and its outputs; may return other outputs."""


@dataclass(frozen=True)
class Grid:
    """The whole multiples of a scale, from a zero point, that values are rounded to.

    Attributes:
        scale: float32 (), or (C,) of one for each row of the values.
        zero_point: of the shape of scale; in the values' integers what 0 is.
        limits: smallest and largest integer.
    """

    scale: Tensor
    zero_point: Tensor
    limits: tuple[int, int]

    def round(self, values: Tensor) -> Tensor:
        """Round to the grid, half to even."""
        if torch.onnx.is_in_onnx_export():
            return self._as_nodes(values)
        if values.is_meta:  # torch's fake quantisation has no kernel for shapes alone
            return values
        if self.scale.ndim:
            return torch.fake_quantize_per_channel_affine(
                values, self.scale, self.zero_point, 0, *self.limits
            )
        return torch.fake_quantize_per_tensor_affine(
            values, self.scale, self.zero_point, *self.limits
        )

    def _as_nodes(self, values: Tensor) -> Tensor:
        integer = torch.uint8 if self.limits[0] == 0 else torch.int8
        grid = (self.scale, self.zero_point.to(integer))
        axis: dict[str, Any] = {"axis": 0} if self.scale.ndim else {}
        integers = torch.onnx.ops.symbolic(
            "QuantizeLinear", (values, *grid), axis, dtype=integer, shape=values.shape
        )
        return torch.onnx.ops.symbolic(
            "DequantizeLinear", (integers, *grid), axis, dtype=values.dtype, shape=values.shape
        )


class QuantizedConv(nn.Conv2d):
    """A convolution in INT8: simulated in FP32, and exported with Q/DQ nodes.

    Inputs have 8 bits without sign and one scale, weights 8 bits with sign and a scale a filter.
    Bias and output are FP32.
    """

    input_scale: Tensor
    input_zero_point: Tensor
    weight_scales: Tensor
    weight_zero_points: Tensor

    def __init__(self, conv: nn.Conv2d, inputs: Grid) -> None:
        """Quantise a convolution, which gives its weights away.

        Args:
            conv: with batch norm folded in.
            inputs: what its inputs are rounded to.
        """
        super().__init__(
            *(conv.in_channels, conv.out_channels, conv.kernel_size),  # type: ignore[arg-type]
            stride=conv.stride,  # type: ignore[arg-type]
            padding=conv.padding,  # type: ignore[arg-type]
            dilation=conv.dilation,  # type: ignore[arg-type]
            groups=conv.groups,
        )
        self.weight = conv.weight
        if conv.bias is None:
            nn.init.zeros_(self.bias)  # type: ignore[arg-type]
        else:
            self.bias = conv.bias
        # Those that EfficientNet's package derives from torch's pad by a layer of their own.
        self.pad = getattr(conv, "static_padding", nn.Identity())
        largest = conv.weight.detach().abs().amax(dim=(1, 2, 3))
        scales = (largest / WEIGHT_LIMIT).clamp_min(SMALLEST_SCALE)
        self.register_buffer("input_scale", inputs.scale)
        self.register_buffer("input_zero_point", inputs.zero_point)
        self.register_buffer("weight_scales", scales)
        self.register_buffer("weight_zero_points", torch.zeros_like(scales, dtype=torch.int32))

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002, torch's name
        """Convolve float32 (N,C,H,W)."""
        weights = Grid(self.weight_scales, self.weight_zero_points, (-WEIGHT_LIMIT, WEIGHT_LIMIT))
        rounded = weights.round(self.weight)
        first, *more = self.input_terms(input)
        outputs: Tensor = self._conv_forward(first, rounded, self.bias)
        for term in more:
            outputs = outputs + self._conv_forward(term, rounded, None)
        return outputs

    def input_terms(self, inputs: Tensor) -> list[Tensor]:
        """Pad and round inputs; what is convolved is the sum of the terms."""
        grid = Grid(self.input_scale, self.input_zero_point, (0, INPUT_LIMIT))
        return [grid.round(self.pad(inputs))]


class GreyLevels(Normalise):
    """Takes the place of normalising: grey levels as they are, which 8 bits hold without loss.

    Around the image stands its mean, which is what a normalised image is padded with.
    """

    border: Tensor
    scale: Tensor
    zero_point: Tensor

    def __init__(self, normalise: Normalise, sides: Sequence[int], size: tuple[int, int]) -> None:
        """Pad as the convolution of the image does.

        Args:
            normalise: that it takes the place of.
            sides: pixels left, right, above and below.
            size: (height, width) of the images.
        """
        super().__init__(normalise.mean.tolist(), normalise.std.tolist())
        self._sides = sides
        self._normalise = normalise
        outside = 1 - self._padded(torch.ones(1, *size, 1))
        self.register_buffer("border", (outside * normalise.mean.round()).to(torch.uint8))
        self.register_buffer("scale", _whole_levels().scale)
        self.register_buffer("zero_point", _whole_levels().zero_point)

    def at_size(self, size: tuple[int, int]) -> GreyLevels:
        """See `Normalise.at_size`."""
        return GreyLevels(self._normalise, self._sides, size)

    def levels(self, images: Tensor) -> Tensor:
        """See `Normalise.levels`."""
        return self._normalise.levels(images)

    def forward(self, images: Tensor) -> Tensor:
        """Pad grey levels (N,H,W,C); returns them float32 (N,C,h,w), of grey images two planes."""
        padded = self._padded(self.levels(images.to(torch.uint8))) + self.border
        # OpenVINO convolves them as 8 bits, in the order they lie in, where this precedes permute.
        grid = Grid(self.scale, self.zero_point, (0, INPUT_LIMIT))
        return grid.round(padded.float()).permute(0, 3, 1, 2)

    def _padded(self, levels: Tensor) -> Tensor:
        return functional.pad(levels, (0, 0, *self._sides))


class QuantizedStem(QuantizedConv):
    """The convolution of the image itself, whose inputs are those of `GreyLevels`."""

    def __init__(self, conv: nn.Conv2d, normalise: Normalise) -> None:
        """Quantise a convolution of normalised images; see `QuantizedConv`."""
        with torch.no_grad():
            conv.weight /= normalise.std.view(1, -1, 1, 1)
        super().__init__(conv, _whole_levels())
        self.pad, self.padding = nn.Identity(), (0, 0)
        assert self.bias is not None
        with torch.no_grad():
            self.bias -= (self.weight * normalise.mean.view(1, -1, 1, 1)).sum(dim=(1, 2, 3))

    def input_terms(self, inputs: Tensor) -> list[Tensor]:
        """See `QuantizedConv.input_terms`."""
        return [inputs]


class TwoTermConv(QuantizedConv):
    """A convolution whose inputs are two terms of 8 bits: what the first lost is the second."""

    def input_terms(self, inputs: Tensor) -> list[Tensor]:
        """See `QuantizedConv.input_terms`."""
        (first,) = super().input_terms(inputs)
        finer = Grid(
            self.input_scale / INPUT_LIMIT,
            torch.full_like(self.input_zero_point, INPUT_LIMIT // 2 + 1),
            (0, INPUT_LIMIT),
        )
        return [first, finer.round(self.pad(inputs) - first)]


Choice = Callable[[str, int, nn.Conv2d, Tensor], QuantizedConv | None]
"""Takes a convolution's name, how many come before it after the image, itself and its inputs;
returns what takes its place, None for FP32."""


def two_terms_behind_the_image(
    _: str, number: int, conv: nn.Conv2d, inputs: Tensor
) -> QuantizedConv:
    """Take inputs in two terms where they come from the image's convolution; see `Choice`."""
    kind = TwoTermConv if number == 1 else QuantizedConv
    return kind(conv, whole_range(inputs))


@torch.no_grad()
def quantize(
    model: Network, images: Tensor, choose: Choice = two_terms_behind_the_image
) -> Network:
    """Return a copy whose convolutions are quantised; nothing is trained.

    Each range is that of the inputs: cut to the least error, they raised the maps of good images.
    The image's convolution takes whole grey levels, which are exact, and the next one takes inputs
    in two terms: where an image is flat, what rounding does there does not average out.
    Weights are rounded one after the other, the rest of a filter making up for what is lost on
    the inputs that occur (GPTQ, arXiv 2210.17323). Then biases are shifted so that every channel
    keeps its mean (empirical bias correction, arXiv 1906.04721): what rounding does to all good
    images alike would look like a difference between teacher and student.

    Args:
        model: the trained network, in evaluation mode; not changed.
        images: uint8 (N,H,W,C), good images of the network's input size.
        choose: what becomes of each convolution but the image's.
    """
    exact = copy.deepcopy(model)
    for name in exact.networks:
        fold_batch_norm(exact.get_submodule(name))
    quantized = copy.deepcopy(exact)
    quantized.normalise = GreyLevels(
        exact.normalise, _image_padding(quantized.teacher), quantized.input_size
    )
    count = 0
    for name in quantized.networks:
        count += _quantize_network(name, count, exact, quantized, images, choose)
    return quantized.requires_grad_(False)


def _image_padding(network: nn.Module) -> Sequence[int]:
    """Return the pixels left, right, above and below that the first convolution adds."""
    conv = next(m for m in network.modules() if isinstance(m, nn.Conv2d))
    static = getattr(conv, "static_padding", None)  # see `QuantizedConv`
    if isinstance(static, nn.ZeroPad2d):
        return static.padding
    sides: Sequence[int] = conv._reversed_padding_repeated_twice
    return sides


def _quantize_network(
    name: str, number: int, exact: Network, quantized: Network, images: Tensor, choose: Choice
) -> int:
    """Quantise one of a model's networks in place; those before it are. Returns its convolutions.

    Args:
        name: the network's.
        number: of the convolutions before it; begins anew at the image.
        exact, quantized: the model in FP32 with batch norm folded in, and what becomes of it.
        images: uint8 (N,H,W,C), good ones.
        choose: see `quantize`.
    """
    normalise, network = exact.normalise, quantized.get_submodule(name)
    normalised, levels = normalise(images), quantized.normalise(images)
    replacements: dict[str, QuantizedConv] = {}
    means: dict[str, Tensor] = {}

    def observe(name: str, _: nn.Conv2d, inputs: Tensor, outputs: Tensor) -> None:
        nonlocal number
        replacement: QuantizedConv | None
        own = network.get_submodule(name)
        assert isinstance(own, nn.Conv2d)
        if inputs is normalised:
            number = 0
            replacement, inputs = QuantizedStem(own, normalise), levels
        else:
            replacement = choose(name, number, own, inputs)
        number += 1
        means[name] = outputs.mean(dim=(0, 2, 3))
        if replacement is not None:
            _compensate(replacement, torch.stack(replacement.input_terms(inputs)).sum(dim=0))
            replacements[name] = replacement

    def correct(name: str, conv: nn.Conv2d, _: Tensor, outputs: Tensor) -> Tensor:
        assert conv.bias is not None
        shift = means[name] - outputs.mean(dim=(0, 2, 3))
        conv.bias += shift
        return outputs + shift.view(-1, 1, 1)

    _run(exact, name, normalised, observe)
    for target, replacement in replacements.items():
        network.set_submodule(target, replacement)
    _run(quantized, name, levels, correct)
    return len(means)


def _compensate(conv: QuantizedConv, inputs: Tensor) -> None:
    """Round a convolution's weights so that its outputs for these inputs change least."""
    if conv.groups > 1 or isinstance(conv.padding, str):
        return
    columns = _patches(conv, inputs)
    columns = columns - columns.mean(dim=1, keepdim=True)  # biases make up for the mean
    curvature = (columns @ columns.T).double()
    curvature.diagonal().add_(DAMPING * curvature.diagonal().mean())
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(curvature))
    factor = torch.linalg.cholesky(inverse, upper=True).float()
    weights = conv.weight.flatten(1).clone()
    for start in range(0, weights.shape[1], BLOCK):
        block = slice(start, start + BLOCK)
        lost = _round_block(weights[:, block], conv.weight_scales, factor[block, block])
        weights[:, block.stop :] -= lost @ factor[block, block.stop :]
    conv.weight = nn.Parameter(weights.view_as(conv.weight))


def _patches(conv: QuantizedConv, inputs: Tensor) -> Tensor:
    """Return what the filters see at up to `PATCHES` places, evenly chosen: (c*kh*kw,M)."""
    assert not isinstance(conv.padding, str)
    chosen = []
    for i in range(len(inputs)):  # unfolded all at once, images of 1024x1024 would take 10 GB
        patches = functional.unfold(
            inputs[i : i + 1], conv.kernel_size, conv.dilation, conv.padding, conv.stride
        )[0]
        places = patches.shape[1]
        step = len(inputs) * places // PATCHES + 1
        chosen.append(patches[:, -i * places % step :: step])
    return torch.cat(chosen, dim=1)


def _round_block(weights: Tensor, scales: Tensor, factor: Tensor) -> Tensor:
    """Round weights (C,n) in place; return what each following weight is to make up for."""
    lost = torch.zeros_like(weights)
    for i, row in enumerate(factor):
        whole = (weights[:, i] / scales).round().clamp(-WEIGHT_LIMIT, WEIGHT_LIMIT) * scales
        lost[:, i] = (weights[:, i] - whole) / row[i]
        weights[:, i] = whole
        weights[:, i + 1 :] -= torch.outer(lost[:, i], row[i + 1 :])
    return lost


def _run(model: Network, network: str, x: Tensor, hook: ConvHook) -> None:
    """Run a model, calling a hook after each convolution of one network; see `ConvHook`."""
    handles = [
        conv.register_forward_hook(
            lambda conv, args, outputs, name=name: hook(name, conv, args[0], outputs)
        )
        for name, conv in model.get_submodule(network).named_modules()
        if isinstance(conv, nn.Conv2d)
    ]
    try:
        model.features(x)
    finally:
        for handle in handles:
            handle.remove()


def _whole_levels() -> Grid:
    return Grid(torch.tensor(1.0), torch.tensor(0, dtype=torch.int32), (0, INPUT_LIMIT))


def whole_range(inputs: Tensor) -> Grid:
    """Return the grid from the smallest to the largest of inputs, and 0."""
    low, high = inputs.min().clamp_max(0), inputs.max()
    scale = ((high - low) / INPUT_LIMIT).clamp_min(SMALLEST_SCALE)
    return Grid(scale, (-low / scale).round().to(torch.int32), (0, INPUT_LIMIT))
