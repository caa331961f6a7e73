"""STPM behind the interface of methods."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from stpm.train.backbones import StateDict, load_teacher, pyramid
from stpm.train.methods.contract import Method, TeacherSource, with_weights
from stpm.train.methods.stpm.network import ModelConfig, Stpm
from stpm.train.methods.stpm.trainer import StpmTrainer
from stpm.train.options import FitOptions


class StpmMethod(Method):
    """See `stpm.train.methods.Method`."""

    config = ModelConfig
    recipes: ClassVar = {
        "fast": FitOptions(epochs=16, batch_size=2, learning_rate=0.8, cooldown=0.25),
        "paper": FitOptions(),
    }
    quantizes = True
    ignores = frozenset({"--teacher-images", "--teacher-folder"})

    def blank(
        self,
        config: ModelConfig,
        options: FitOptions,
        source: TeacherSource,
    ) -> tuple[Stpm, dict[str, str]]:
        """Put a random student beside the pre-trained teacher."""
        teacher, teacher_id = load_teacher(config.backbone, config.taps, source.weights)
        with torch.random.fork_rng():
            torch.manual_seed(options.seed)
            return Stpm(config, teacher), teacher_id

    def network(self, config: ModelConfig, teacher: StateDict, student: StateDict) -> Stpm:
        """Build both pyramids with these weights."""
        return with_weights(Stpm(config, pyramid(config.backbone, config.taps)), teacher, student)

    def trainer(
        self,
        network: Stpm,
        train_images: NDArray[np.uint8],
        held_out_images: NDArray[np.uint8],
        options: FitOptions,
    ) -> StpmTrainer:
        """Train the student as published."""
        return StpmTrainer(network, train_images, held_out_images, options)


METHOD = StpmMethod()
