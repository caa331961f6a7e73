"""The deployment graph: uint8 pixels in, anomaly map and score out, nothing left to do outside."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from stpm.export.resample import antialias_matrix, bilinear_matrix, blocks_of
from stpm.export.weights import fold_batch_norm, round_weights
from stpm.train.methods import Network

DTYPES = {
    "fp32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
    "int8": torch.float32,
}
"""Types of teacher and student (INT8: between their convolutions); all else is FP32."""
COARSE_UNIT = 1 << 14
"""8 bits of a grey level and 14 of a coarse weight fit float32; so do those of 500 fine weights."""


class DeploymentGraph(nn.Module):
    """A trained network with batch norm folded, resizing as matrices and precisions as casts."""

    def __init__(
        self, model: Network, precision: str = "fp32", camera_size: tuple[int, int] | None = None
    ) -> None:
        """Copy a model into the form that engines run.

        Args:
            model: the trained network, for INT8 one of `quantize`; not changed.
            precision: a key of `DTYPES`.
            camera_size: (height, width) of the images, to resize inside; None expects images of
                the network's input size.
        """
        super().__init__()
        network_size = model.input_size
        self.precision = precision
        self.dtype = DTYPES[precision]
        self.channels = model.channels
        self.input_size = camera_size or network_size
        self.map_size = network_size
        self.resize: nn.Module = (
            nn.Identity()
            if self.input_size == network_size
            else PillowResize(self.input_size, network_size)
        )
        self.model = copy.deepcopy(model).eval()
        self.upsample: nn.Module = MatrixUpsample(level_sizes(self.model), network_size)
        # Folding before casting: afterwards FP32 batch norms would stand between half convolutions.
        for network in map(self.model.get_submodule, self.model.networks):
            fold_batch_norm(network)
            round_weights(network, self.dtype)
            network.to(self.dtype)
        self.requires_grad_(False)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Score images.

        Args:
            images: uint8 (N,H,W,`channels`), of `input_size`.

        Returns:
            anomaly_map float32 (N,h,w) of `map_size`, and pred_score float32 (N,).
        """
        return self.score(*self.model.features(self.prepare(images)))

    def prepare(self, images: Tensor) -> Tensor:
        """Resize and normalise images to what the networks take, (N,C,h,w) in `dtype`."""
        # TensorRT takes uint8 for nothing but a cast, with which both of them begin.
        normalised: Tensor = self.model.normalise(self.resize(images))
        return normalised.to(self.dtype)

    def score(self, *features: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Score the model's `features`; see `forward`."""
        return self.model.score(features, self.upsample)


class PillowResize(nn.Module):
    """Pillow's antialiased bilinear resize: columns, then rows, each rounded to grey levels.

    A grey level times a weight has up to 30 bits, float32 holds 24. So each weight is the sum of a
    coarse and a fine one, and no product or sum is ever rounded, whatever an engine's order.
    """

    def __init__(self, size: tuple[int, int], target: tuple[int, int]) -> None:
        super().__init__()
        same = [s == t for s, t in zip(size, target, strict=True)]
        self.rows, self.columns = (
            nn.Identity() if equal else _AxisResize(antialias_matrix(s, t))
            for equal, s, t in zip(same, size, target, strict=True)
        )

    def forward(self, pixels: Tensor) -> Tensor:
        """Resize grey levels (N,H,W,C) to (N,h,w,C)."""
        across = self.columns(pixels.float().permute(0, 2, 3, 1))
        down: Tensor = self.rows(across.permute(0, 3, 2, 1))
        return down.permute(0, 1, 3, 2)


class _AxisResize(nn.Module):
    """Products of a resizing matrix with the channels, as convolutions by its blocks.

    TensorRT-RTX has no FP32 matrix products on Turing, and the matrix is nearly all zeros.
    """

    index: Tensor
    coarse: Tensor
    fine: Tensor

    def __init__(self, matrix: NDArray[np.float32]) -> None:
        super().__init__()
        weights, index = blocks_of(matrix)
        self._groups = len(index)
        coarse, fine = _coarse_and_fine(torch.from_numpy(weights))
        # A buffer each: from slices of a common one TensorRT-RTX builds other bytes each time.
        self.register_buffer("coarse", coarse[:, :, None, None])
        self.register_buffer("fine", fine[:, :, None, None])
        self.register_buffer("index", torch.from_numpy(index.reshape(-1)))

    def forward(self, pixels: Tensor) -> Tensor:
        pixels = pixels.index_select(1, self.index)
        coarse, fine = (
            functional.conv2d(pixels, weights, groups=self._groups)
            for weights in (self.coarse, self.fine)
        )
        whole = torch.floor(coarse)
        return whole + torch.floor(coarse - whole + fine + 0.5)


def _coarse_and_fine(weights: Tensor) -> tuple[Tensor, Tensor]:
    """Split weights into multiples of 1/COARSE_UNIT and what they lack, float32 both."""
    coarse = torch.round(weights * COARSE_UNIT) / COARSE_UNIT
    return coarse, weights - coarse


class MatrixUpsample(nn.Module):
    """Bilinear upsampling of level maps to one size, as U M V', the products as convolutions.

    TensorRT-RTX has no FP32 matrix products on Turing, and does not build the same bytes each time
    from convolutions of one dimension.
    """

    def __init__(self, level_sizes: list[tuple[int, int]], target: tuple[int, int]) -> None:
        super().__init__()
        for height, width in level_sizes:
            for name, size, axis in (("rows", height, 0), ("columns", width, 1)):
                matrix = torch.from_numpy(bilinear_matrix(size, target[axis]))
                self.register_buffer(f"{name}_{size}", matrix[:, :, None, None])

    def forward(self, level: Tensor) -> Tensor:
        """Upsample float32 (N,1,h,w) to (N,1,H,W)."""
        rows = self.get_buffer(f"rows_{level.shape[2]}")
        columns = self.get_buffer(f"columns_{level.shape[3]}")
        across = functional.conv2d(level.permute(0, 3, 2, 1), columns)
        return functional.conv2d(across.permute(0, 2, 1, 3), rows).permute(0, 3, 1, 2)


def level_sizes(model: Network) -> list[tuple[int, int]]:
    """Return the (height, width) in cells of a network's levels."""
    shapes = copy.deepcopy(model).to("meta")  # without computing
    with torch.no_grad():
        images = torch.zeros(1, *model.input_size, model.channels, device="meta")
        teacher, *_ = shapes.features(shapes.normalise(images))
    return [(level.shape[2], level.shape[3]) for level in teacher]
