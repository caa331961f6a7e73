"""Train RD's student."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from stpm.train.methods.contract import interpolate_to
from stpm.train.methods.distances import matching_loss, unit_features
from stpm.train.methods.distillation import Distillation

BETAS = (0.5, 0.999)
"""Of Adam, as published."""


class RdTrainer(Distillation):
    """Restores the teacher's features from themselves; see `Distillation`."""

    def make_optimiser(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """Return Adam with the options' rates."""
        on_gpu = self.device.type == "cuda"
        return torch.optim.Adam(
            parameters,
            lr=self.constant_rate(),
            betas=BETAS,
            weight_decay=self.options.weight_decay,
            fused=on_gpu,
            capturable=on_gpu,
        )

    @staticmethod
    def target(level: Tensor) -> Tensor:
        """Keep the features as they are, which the student takes."""
        return level

    def loss(self, pixels: Tensor, targets: Sequence[Tensor]) -> Tensor:  # noqa: ARG002
        """Average 1 - cos over positions and batch, and sum over levels (equations 1 and 2)."""
        levels = [target.float() for target in targets]
        units = [unit_features(level) for level in levels]
        return 0.5 * matching_loss(units, self.student_features(levels))

    def maps(self, pixels: Tensor, targets: Sequence[Tensor]) -> Tensor:  # noqa: ARG002
        """Compute the network's own maps."""
        levels = [target.float() for target in targets]
        features = (levels, self.student_features(levels))
        maps: Tensor
        maps, _ = self.model.score(features, interpolate_to(self.model.input_size))
        return maps
