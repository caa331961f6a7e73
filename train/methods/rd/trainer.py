"""Train RD's student."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from stpm.train.methods.contract import interpolate_to
from stpm.train.methods.distillation import Distillation
from stpm.train.methods.rd.network import Rd
from stpm.train.options import FitOptions

BETAS = (0.5, 0.999)
"""Of Adam, as published."""
EASY = (-3.0, 2.0)
"""Standard deviations above the mean up to which a position is easy, at first and at last."""
EASY_RISE = 0.3
"""Share of the steps over which it rises."""


class RdTrainer(Distillation):
    """Restores the teacher's features from themselves; see `Distillation`."""

    def __init__(
        self,
        model: Rd,
        train_images: NDArray[np.uint8],
        held_out_images: NDArray[np.uint8],
        options: FitOptions,
    ) -> None:
        super().__init__(model, train_images, held_out_images, options)
        self._easy = torch.tensor(EASY[0], device=self.device)  # which a captured step reads anew

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

    def cool_down(self, share_done: float) -> None:
        """Set the learning rate of the next step, and which positions it leaves out."""
        super().cool_down(share_done)
        share = (self.epoch + share_done) / self.options.epochs
        first, last = EASY
        self._easy.fill_(first + (last - first) * min(share / EASY_RISE, 1.0))

    def loss(self, pixels: Tensor, targets: Sequence[Tensor]) -> Tensor:
        """Average 1 - cos over the batch, and sum over levels.

        The cosine is that of whole levels, all positions together, as in the authors' code and
        anomalib: positions count by the strength of their features. Equation 1 of the paper takes
        it position by position. With `hard_positions`, positions whose own 1 - cos lies below the
        batch's mean plus `EASY` standard deviations pass no gradient, so that the decoder does not
        learn to restore ever finer what it restores well, defects among it.

        Source: the hard mining of ReContrast, arXiv 2306.02602.
        """
        total = pixels.new_zeros(())
        levels = [target.float() for target in targets]
        for level, features in zip(levels, self.student_features(levels), strict=True):
            restored = features.float()
            if self.options.hard_positions:
                with torch.no_grad():
                    distance = 1 - F.cosine_similarity(level, restored, dim=1)[:, None]
                    is_easy = distance < distance.mean() + self._easy * distance.std()
                restored = torch.where(is_easy, restored.detach(), restored)
            total = total + 1 - F.cosine_similarity(level.flatten(1), restored.flatten(1)).mean()
        return total

    def maps(self, pixels: Tensor, targets: Sequence[Tensor]) -> Tensor:  # noqa: ARG002
        """Compute the network's own maps."""
        levels = [target.float() for target in targets]
        features = (levels, self.student_features(levels))
        maps: Tensor
        maps, _ = self.model.score(features, interpolate_to(self.model.input_size))
        return maps
