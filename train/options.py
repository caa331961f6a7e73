"""How to train: what the trainers of all methods are told."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from stpm.runtime.images.preprocess import FULL_DEPTH

Precision = Literal["auto", "fp32", "bf16", "fp16"]


@dataclass(frozen=True)
class FitOptions:
    """How to train. The defaults are the authors'.

    Attributes:
        epochs: passes over the training images.
        batch_size: images a step; the last, smaller batch of an epoch is used.
        learning_rate, momentum, weight_decay: of SGD.
        cooldown: share of the steps, the last ones, over which the learning rate falls linearly
            to 0; before them it is constant.
        held_out: share of the good images that choose the best epoch and are not trained on.
        train_share: share of the good images to use at all, chosen before any is held out.
        seed: fixes that choice, the split, the student's initial weights and the order of the
            images.
        tile: side in pixels of the tiles that are trained on, at full resolution; 0 for whole
            images, resized.
        bit_depth: bits that the camera uses of images of 16 bits.
        hard_positions: whether RD learns only from positions that are restored worse than most.
        augment: whether the images are disturbed anew in every epoch; see `stpm.train.augment`.
        cache_gb: memory for teacher features in 10^9 bytes; beyond it they are recomputed.
        device: "auto", "cpu" or "cuda".
        precision: what the student's convolutions compute in; "auto" is bf16 where the hardware
            has it.
        compile: whether to run the student through torch.compile (needs a C++ compiler).
    """

    epochs: int = 200
    batch_size: int = 32
    learning_rate: float = 0.4
    momentum: float = 0.9
    weight_decay: float = 1e-4
    cooldown: float = 0.0
    held_out: float = 0.2
    train_share: float = 1.0
    seed: int = 0
    hard_positions: bool = False
    augment: bool = False
    cache_gb: float = 4.0
    tile: int = 0
    bit_depth: int = FULL_DEPTH
    device: str = "auto"
    precision: Precision = "auto"
    compile: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON or `torch.save`."""
        return asdict(self)
