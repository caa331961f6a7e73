"""Train STPM's student."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from stpm.train.methods.contract import interpolate_to
from stpm.train.methods.distances import matching_loss, squared_distance, unit_features
from stpm.train.methods.distillation import Distillation
from stpm.train.methods.stpm.network import anomaly_map


class StpmTrainer(Distillation):
    """Matches the student's features with the teacher's; see `Distillation`."""

    def make_optimiser(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """Return SGD with the options' rates."""
        return torch.optim.SGD(
            parameters,
            lr=self.constant_rate(),
            momentum=self.options.momentum,
            weight_decay=self.options.weight_decay,
            fused=self.device.type == "cuda",
        )

    @staticmethod
    def target(level: Tensor) -> Tensor:
        """Keep the unit features."""
        return unit_features(level)

    def loss(self, pixels: Tensor, targets: Sequence[Tensor]) -> Tensor:
        """See `matching_loss`."""
        return matching_loss(targets, self.student_features(pixels))

    def maps(self, pixels: Tensor, targets: Sequence[Tensor]) -> Tensor:
        """See `anomaly_map`."""
        students = self.student_features(pixels)
        distances = [squared_distance(t, s) for t, s in zip(targets, students, strict=True)]
        return anomaly_map(distances, interpolate_to(self.model.input_size))
