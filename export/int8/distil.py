"""Distillation in INT8: the student as it will run learns the teacher as it will run."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from stpm.export.int8.quantize import QuantizedConv, QuantizedStem
from stpm.train.methods import Network
from stpm.train.methods.distances import matching_loss

LEARNING_RATE = 5e-5
"""At ten times this rate the student trained on: its scores left those of FP32."""
MOMENTUM = 0.9
BATCH_SIZE = 16
BATCH_PIXELS = BATCH_SIZE << 16
"""Most pixels of a step's images, so that memory suffices for large ones."""


def distil(
    model: Network, images: Tensor, epochs: int, on_images: Callable[[int], None] = lambda _: None
) -> None:
    """Fine-tune a quantised student against its quantised teacher, in place.

    What rounding the teacher does to all good images alike, the student learns. Weights are rounded
    in every step, and gradients pass as if they were not (straight-through). The convolution of the
    image stays: on grey levels, which have no zero mean, its gradients let every rate diverge.

    Args:
        model: of `quantize`.
        images: uint8 (N,H,W,C), good ones of the network's input size.
        epochs: over all images.
        on_images: called after each step with its number of images.
    """
    parameters = [
        parameter
        for module in model.student.modules()
        if isinstance(module, QuantizedConv) and not isinstance(module, QuantizedStem)
        for parameter in module.parameters()
    ]
    for parameter in parameters:
        parameter.requires_grad_(True)
    height, width = model.input_size
    size = max(min(BATCH_SIZE, BATCH_PIXELS // (height * width)), 1)
    steps = -(-len(images) // size)
    optimiser = torch.optim.SGD(parameters, LEARNING_RATE, MOMENTUM)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs * steps)
    for epoch in range(epochs):
        order = torch.from_numpy(np.random.default_rng(epoch).permutation(len(images)))
        for index in torch.split(order, size):
            x = model.normalise(images[index])
            targets, students = model.features(x)
            optimiser.zero_grad()
            matching_loss(targets, students).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
            on_images(len(index))
    model.requires_grad_(False)
