"""Train STPM's student."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from stpm.train.methods.contract import interpolate_to
from stpm.train.methods.distances import matching_loss, squared_distance, unit_features
from stpm.train.methods.distillation import Distillation
from stpm.train.methods.stpm.network import Stpm, anomaly_map


class StpmTrainer(Distillation):
    """Matches the student's features with the teacher's; see `Distillation`."""

    model: Stpm

    def make_optimiser(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """Return SGD with the options' rates."""
        return torch.optim.SGD(
            parameters,
            lr=self.constant_rate(),
            momentum=self.options.momentum,
            weight_decay=self.options.weight_decay,
            fused=self.device.type == "cuda",
        )

    def targets(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Keep the unit features, and what the student starts from as it is."""
        shared = features[: len(features) - len(self.model.config.matched)]
        return [*shared, *map(unit_features, features[len(shared) :])]

    def loss(self, pixels: Tensor, targets: Sequence[Tensor]) -> Tensor:
        """See `matching_loss`."""
        return matching_loss(*self._compared(pixels, targets))

    def maps(self, pixels: Tensor, targets: Sequence[Tensor]) -> Tensor:
        """See `anomaly_map`."""
        units, students = self._compared(pixels, targets)
        distances = [squared_distance(t, s) for t, s in zip(units, students, strict=True)]
        return anomaly_map(distances, interpolate_to(self.model.input_size))

    def _compared(
        self, pixels: Tensor, targets: Sequence[Tensor]
    ) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        """Return the matched levels' unit features of the teacher, and features of the student."""
        if not self.model.config.share_to:
            return targets, self.student_features(pixels)
        shared, *units = targets
        return units, self.student_features(shared.float())
