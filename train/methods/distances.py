"""How far the student's features are from the teacher's, as a map and as a loss."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

NORM_EPSILON = 1e-12
"""Lower bound of a feature vector's length: zero features give distance zero, not NaN, in FP32."""


def unit_features(features: Tensor) -> Tensor:
    """Scale each position's feature vector to length one, in FP32 whatever the networks run in.

    FP16 would lose half the digits of 1 - cos and turn zero vectors into NaN.
    """
    # F.normalize does the same, and exports an Expand beside each division.
    return features.float() / vector_length(features)


def vector_length(features: Tensor) -> Tensor:
    """Measure each position's feature vector (N,C,h,w) in FP32: (N,1,h,w), never below epsilon."""
    length: Tensor = torch.linalg.vector_norm(features.float(), dim=1, keepdim=True)
    return length.clamp_min(NORM_EPSILON)


def squared_distance(target: Tensor, student: Tensor) -> Tensor:
    """Compute the squared distance between the unit feature vectors of each position.

    It is 2 (1 - cos), twice the paper's loss of a position (equation 1, whose printed form names
    the teacher twice). The authors' code leaves the paper's factor 1/2 out and so do we, for the
    loss, where it counts together with the learning rate of 0.4, and for the map, where it only
    scales every score by 2 to the number of levels.

    Args:
        target: float (N,C,h,w), the teacher's unit features.
        student: float (N,C,h,w), the student's raw features.

    Returns:
        float32 (N,1,h,w), in [0, 4].
    """
    difference = target.float() - unit_features(student)
    return (difference * difference).sum(dim=1, keepdim=True)


def feature_distances(targets: Sequence[Tensor], students: Sequence[Tensor]) -> list[Tensor]:
    """Compute `squared_distance` a level, float32 (N,1,h,w), from raw features (N,C,h,w)."""
    units = map(unit_features, targets)
    return [squared_distance(t, s) for t, s in zip(units, students, strict=True)]


def matching_loss(targets: Sequence[Tensor], students: Sequence[Tensor]) -> Tensor:
    """Average `squared_distance` over positions and batch, and sum over levels: the training loss.

    Source: equations 2 and 3 with alpha_l = 1, without the factor 1/2 (see `squared_distance`).
    Summing over positions or dividing by the channels, as other ports do, changes the effective
    learning rate by more than ten times.
    """
    losses = [_LevelLoss.apply(t, s) for t, s in zip(targets, students, strict=True)]
    return torch.stack(losses).sum()


class _LevelLoss(torch.autograd.Function):
    """The mean of `squared_distance`, differentiated by hand.

    With target t, student s, u = s / |s| and c = t.u, the distance is |t|^2 - 2c + |u|^2 and its
    gradient -2 (t - c u) / |s|. This reads and writes a level a few times, each time once; autograd
    would do so some twenty times, which is what the loss costs. Its value is exact to 1e-6, of a
    trained student's 1e-2. On a processor one image at a time stays in the caches.
    """

    @staticmethod
    def forward(ctx: Any, target: Tensor, student: Tensor) -> Tensor:
        sums, products, lengths = [], [], []
        for t, s in _pieces(target, student):
            product = _wide_product(t, s).sum(dim=1, keepdim=True)
            norm = _norm(s)
            length = norm.clamp_min(NORM_EPSILON)
            distance = _norm(t).square() - 2 * product / length + (norm / length).square()
            sums.append(distance.sum())
            products.append(product)
            lengths.append(length)
        ctx.save_for_backward(target, student, torch.cat(products), torch.cat(lengths))
        return torch.stack(sums).sum() / _position_count(student)

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[None, Tensor]:
        student = ctx.saved_tensors[1]
        gradient = torch.empty_like(student)
        factor = -2 * outer[0] / _position_count(student)
        for t, s, product, length, out in _pieces(*ctx.saved_tensors, gradient):
            of_target = factor / length
            of_student = -of_target * product / length.square()
            torch.addcmul(t * of_target, s, of_student, out=out)
        return None, gradient


def _norm(features: Tensor) -> Tensor:
    """Measure feature vectors (N,C,h,w) in FP32 without an FP32 copy: (N,1,h,w)."""
    norm: Tensor = torch.linalg.vector_norm(features, dim=1, keepdim=True, dtype=torch.float32)
    return norm


def _wide_product(target: Tensor, student: Tensor) -> Tensor:
    """Multiply in FP32, which FP16 and bf16 together give of themselves."""
    return (target.float() if target.dtype == student.dtype else target) * student


def _pieces(*batches: Tensor) -> Iterator[tuple[Tensor, ...]]:
    size = 1 if batches[0].device.type == "cpu" else len(batches[0])
    return zip(*(torch.split(batch, size) for batch in batches), strict=True)


def _position_count(features: Tensor) -> int:
    return features.numel() // features.shape[1]
