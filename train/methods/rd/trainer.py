"""Train RD's student."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stpm.train.methods.contract import interpolate_to
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

    def targets(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Keep the features as they are, which the student takes."""
        return list(features)

    def loss(self, pixels: Tensor, targets: Sequence[Tensor]) -> Tensor:  # noqa: ARG002
        """Average 1 - cos over the batch, and sum over levels.

        The cosine is that of whole levels, all positions together, as in the authors' code and
        anomalib: positions count by the strength of their features. Equation 1 of the paper takes
        it position by position.
        """
        levels = [target.float() for target in targets]
        cosines = [
            F.cosine_similarity(level.flatten(1), restored.float().flatten(1)).mean()
            for level, restored in zip(levels, self.student_features(levels), strict=True)
        ]
        return (1 - torch.stack(cosines)).sum()

    def maps(self, pixels: Tensor, targets: Sequence[Tensor]) -> Tensor:  # noqa: ARG002
        """Compute the network's own maps."""
        levels = [target.float() for target in targets]
        features = (levels, self.student_features(levels))
        maps: Tensor
        maps, _ = self.model.score(features, interpolate_to(self.model.input_size))
        return maps
