"""Gaussian smoothing of anomaly maps, as part of the graph."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

DEVIATION = 4
"""Standard deviation of the Gaussian in pixels."""


class Smoothing(nn.Module):
    """Smooths maps by a Gaussian along both axes, mirrored at the borders.

    Products with constant matrices, as convolutions: TensorRT-RTX has no FP32 matrix products on
    Turing.
    """

    rows: Tensor
    columns: Tensor

    def __init__(self, size: tuple[int, int]) -> None:
        """Prepare maps of (height, width)."""
        super().__init__()
        for name, length in zip(("rows", "columns"), size, strict=True):
            matrix = gaussian_matrix(length)[:, :, None, None]
            self.register_buffer(name, matrix, persistent=False)

    def forward(self, maps: Tensor) -> Tensor:
        """Smooth float32 (N,1,H,W); returns (N,H,W)."""
        across = F.conv2d(maps.permute(0, 3, 2, 1), self.columns)
        down = F.conv2d(across.permute(0, 2, 1, 3), self.rows)
        return down.permute(0, 3, 1, 2).squeeze(1)


def gaussian_matrix(size: int) -> Tensor:
    """Return the weights of Gaussian smoothing along one axis, mirrored at the ends.

    Returns:
        float32 (size,size), rows sum to 1; scipy's `gaussian_filter1d(mode="reflect")`.
    """
    reach = int(4 * DEVIATION + 0.5)
    steps = np.arange(-reach, reach + 1)
    weights = np.exp(-0.5 * (steps / DEVIATION) ** 2)
    weights /= weights.sum()
    matrix = np.zeros((size, size))
    for row in range(size):
        position = (row + steps) % (2 * size)
        mirrored = np.minimum(position, 2 * size - 1 - position)
        np.add.at(matrix[row], mirrored, weights)
    return torch.from_numpy(matrix).float()
