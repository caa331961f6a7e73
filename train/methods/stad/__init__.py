"""STAD behind the interface of methods."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from stpm.train.backbones import StateDict, state_hash
from stpm.train.datasets import list_images
from stpm.train.methods.contract import Method, Progress, TeacherSource, with_weights
from stpm.train.methods.stad.network import Stad, StadConfig
from stpm.train.methods.stad.patch_networks import PatchNetworks
from stpm.train.methods.stad.teacher import keep_teacher, kept_teacher, teacher_path
from stpm.train.methods.stad.trainer import StadTrainer
from stpm.train.options import FitOptions

TEACHER_FOLDER = Path("stad_teachers")


class StadMethod(Method):
    """See `stpm.train.methods.Method`."""

    config = StadConfig
    recipes: ClassVar = {
        "paper": FitOptions(epochs=100, batch_size=1, learning_rate=1e-4, weight_decay=1e-5)
    }
    ignores = frozenset({"--augment", "--cache-gb", "--compile", "--share-to", "--tile"})

    def prepare_teacher(
        self,
        config: StadConfig,
        options: FitOptions,
        source: TeacherSource,
        images: Sequence[Path],
        progress: Progress,
    ) -> None:
        """Train the patch networks that the folder does not keep yet."""
        for patch_size in config.patch_sizes:
            path = teacher_path(source.folder or TEACHER_FOLDER, patch_size)
            if not path.is_file():
                keep_teacher(
                    path,
                    patch_size,
                    config.teacher_options,
                    weights=source.weights,
                    images=list_images(source.images) if source.images else images,
                    fit=options,
                    progress=progress,
                )

    def blank(
        self, config: StadConfig, options: FitOptions, source: TeacherSource
    ) -> tuple[Stad, dict[str, str]]:
        """Put random students beside the teachers that are kept."""
        teacher = PatchNetworks(config.patch_sizes)
        names = []
        for i, patch_size in enumerate(config.patch_sizes):
            path = teacher_path(source.folder or TEACHER_FOLDER, patch_size)
            teacher.members[i], name = kept_teacher(path, patch_size, config.teacher_options)
            names.append(name)
        with torch.random.fork_rng():
            torch.manual_seed(options.seed)
            network = Stad(config, teacher)
        return network, {"source": ", ".join(names), "sha256": state_hash(teacher.state_dict())}

    def network(self, config: StadConfig, teacher: StateDict, student: StateDict) -> Stad:
        """Build teacher and students with these weights."""
        return with_weights(Stad(config, PatchNetworks(config.patch_sizes)), teacher, student)

    def trainer(
        self,
        network: Stad,
        train_images: NDArray[np.uint8],
        held_out_images: NDArray[np.uint8],
        options: FitOptions,
    ) -> StadTrainer:
        """Train the students as published."""
        return StadTrainer(network, train_images, held_out_images, options)


METHOD = StadMethod()
