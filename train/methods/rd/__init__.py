"""Reverse distillation behind the interface of methods."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from stpm.train.backbones import StateDict, load_teacher, pyramid
from stpm.train.methods.contract import Method, TeacherSource, with_weights
from stpm.train.methods.rd.network import LEVELS, Rd, RdConfig
from stpm.train.methods.rd.trainer import RdTrainer
from stpm.train.options import FitOptions

PUBLISHED = FitOptions(epochs=200, batch_size=16, learning_rate=0.005, weight_decay=0.0)


class RdMethod(Method):
    """See `stpm.train.methods.Method`."""

    config = RdConfig
    recipes: ClassVar = {
        "fast": replace(PUBLISHED, epochs=32, batch_size=4, cooldown=0.5, hard_positions=True),
        "paper": PUBLISHED,
    }
    quantizes = True
    ignores = frozenset({"--teacher-images", "--teacher-folder", "--tile", "--share-to"})

    def blank(
        self, config: RdConfig, options: FitOptions, source: TeacherSource
    ) -> tuple[Rd, dict[str, str]]:
        """Put a random bottleneck and decoder behind the pre-trained teacher."""
        teacher, teacher_id = load_teacher(config.backbone, LEVELS, source.weights)
        with torch.random.fork_rng():
            torch.manual_seed(options.seed)
            return Rd(config, teacher), teacher_id

    def network(self, config: RdConfig, teacher: StateDict, student: StateDict) -> Rd:
        """Build teacher, bottleneck and decoder with these weights."""
        return with_weights(Rd(config, pyramid(config.backbone, LEVELS)), teacher, student)

    def trainer(
        self,
        network: Rd,
        train_images: NDArray[np.uint8],
        held_out_images: NDArray[np.uint8],
        options: FitOptions,
    ) -> RdTrainer:
        """Train bottleneck and decoder together."""
        return RdTrainer(network, train_images, held_out_images, options)


METHOD = RdMethod()
