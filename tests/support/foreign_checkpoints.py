"""Students as other programs write them."""

from __future__ import annotations

import torch

from stpm.train.backbones import StateDict

LAYERS = {"conv1": "model.0", "bn1": "model.1"} | {f"layer{i}": f"model.{i + 3}" for i in (1, 2, 3)}


def as_authors(student: StateDict) -> StateDict:
    """Name a student's tensors as the STPM authors' code does."""
    keys = {key: key.partition(".") for key in student}
    state = {f"{LAYERS[layer]}.{rest}": student[key] for key, (layer, _, rest) in keys.items()}
    return state | {"model.7.0.conv1.weight": torch.ones(512, 256, 3, 3)}
