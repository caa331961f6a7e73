"""What the commands ask of a method.

Its network has a teacher and a student: whatever training leaves unchanged and whatever it makes; a
checkpoint keeps the state of both. `export.graph` runs `networks` in the bundle's precision and
`score` in FP32.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from stpm.train.backbones import StateDict, load_state
from stpm.train.epochs import EpochRecord
from stpm.train.options import FitOptions

Upsample = Callable[[Tensor], Tensor]
"""Brings maps float32 (N,1,h,w) of the teacher's sizes to the input size, bilinearly."""

Progress = Callable[[str, int, str], AbstractContextManager[Callable[[int], None]]]
"""Shows something by its label, total and unit; what it gives is told of each advance."""


class Config(Protocol):
    """A frozen dataclass of what fixes a network but its weights; fields are plain or tuples."""

    @property
    def method(self) -> str:
        """Key of `METHODS`."""
        ...

    @property
    def input_size(self) -> tuple[int, int]:
        """(height, width) in pixels of the images that the networks see, and of the maps."""
        ...

    def check(self) -> None:
        """Raise CheckpointError for what cannot be built."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON or `torch.save`."""
        ...


class Normalise(nn.Module):
    """Brings grey levels (N,H,W,C) to the range that a backbone expects, float32 (N,C,H,W)."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Take the mean and standard deviation of each channel, in grey levels."""
        super().__init__()
        for name, values in (("mean", mean), ("std", std)):
            self.register_buffer(name, torch.tensor(values), persistent=False)

    def at_size(self, size: tuple[int, int]) -> Normalise:
        """Return this for images of another (height, width)."""
        return self

    def levels(self, images: Tensor) -> Tensor:
        """Return grey levels (N,H,W,C) with what else the networks take as channels: nothing."""
        return images

    def forward(self, images: Tensor) -> Tensor:
        """Normalise; the channels are brought forward last, which an engine need not compute."""
        normalised: Tensor = (images.float() - self.mean) / self.std
        return normalised.permute(0, 3, 1, 2)


class Network(nn.Module, ABC):
    """A frozen teacher, what is trained beside it, and the scoring between them.

    Attributes:
        networks: names of the modules that may run in reduced precision; see `features`.
        normalise: makes such images of grey levels (N,H,W,C), in FP32.
        channels: of the images: 3, or 1 after `stpm.export.grey.grey_network`.
    """

    channels: int = 3
    networks: tuple[str, ...] = ("teacher", "student")

    def __init__(
        self, teacher: nn.Module, student: nn.Module, mean: Sequence[float], std: Sequence[float]
    ) -> None:
        super().__init__()
        self.teacher = teacher
        self.student = student
        self.normalise = Normalise(mean, std)

    @property
    @abstractmethod
    def input_size(self) -> tuple[int, int]:
        """The config's."""

    @abstractmethod
    def score(
        self, features: Sequence[Sequence[Tensor]], upsample: Upsample
    ) -> tuple[Tensor, Tensor]:
        """Score the `features`, in FP32 from here on.

        Returns:
            anomaly_map float32 (N,H,W) and pred_score float32 (N,).
        """

    def features(self, x: Tensor) -> list[Sequence[Tensor]]:
        """Run the networks on normalised images float (N,C,H,W).

        Returns:
            What each of them gives, float (N,C,h,w) a level.
        """
        return [self.get_submodule(name)(x) for name in self.networks]

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Score images; the FP32 reference that every engine is measured against.

        Args:
            images: uint8 (N,H,W,C), RGB, of the config's input size.

        Returns:
            anomaly_map float32 (N,H,W) and pred_score float32 (N,).
        """
        features = self.features(self.normalise(images))
        return self.score(features, interpolate_to(self.input_size))


AnyNetwork = TypeVar("AnyNetwork", bound=Network)


def with_weights(network: AnyNetwork, teacher: StateDict, student: StateDict) -> AnyNetwork:
    """Load a checkpoint's weights into a network of its config; CheckpointError if they misfit."""
    load_state(network.teacher, teacher, "the checkpoint's teacher")
    load_state(network.student, student, "the checkpoint's student")
    return network


@dataclass(frozen=True)
class TeacherSource:
    """Where a teacher comes from.

    Attributes:
        weights: of its backbone, .safetensors or .pth; None takes ImageNet's.
        images: folder that a teacher is trained on, by methods that train one.
        folder: where such teachers are kept for the next category.
    """

    weights: Path | None = None
    images: Path | None = None
    folder: Path | None = None


class Trainer(Protocol):
    """The state of one training run: `run_epoch` until `epoch` reaches the options' epochs.

    `written_epoch` is the one whose checkpoint is on disk, which `stpm.train.run_files` says.
    """

    options: FitOptions
    device: torch.device
    dtype: torch.dtype
    epoch: int
    written_epoch: int
    best_epoch: int
    best_held_out: float
    best_student: StateDict

    @property
    def image_counts(self) -> tuple[int, int]:
        """Numbers of images to train on, and held out."""
        ...

    def prepare(self, on_images: Callable[[int], None]) -> str:
        """Do what comes before the first epoch, once over all images; returns a line about it."""
        ...

    def run_epoch(self, on_step: Callable[[int], None] = ...) -> EpochRecord:
        """Train one epoch, score the held-out images, and remember the best student.

        Args:
            on_step: called after each step with its number of images.
        """
        ...

    def resume_state(self) -> dict[str, Any]:
        """Return a copy of what `load_resume_state` needs to continue with the same weights."""
        ...

    def load_resume_state(self, state: dict[str, Any], best_student: dict[str, Tensor]) -> None:
        """Continue from `resume_state`."""
        ...


class Method(Protocol):
    """A method of anomaly detection; those here derive from it."""

    config: type[Config]
    recipes: ClassVar[Mapping[str, FitOptions]]
    """How to train, by name; the first is the default, "paper" what was published."""
    quantizes: bool = False
    """Whether its convolutions may run in INT8."""
    ignores: frozenset[str] = frozenset()
    """Options of stpm-train that mean nothing here, by their flags: giving one is refused."""

    def prepare_teacher(
        self,
        config: Any,
        options: FitOptions,
        source: TeacherSource,
        images: Sequence[Path],
        progress: Progress,
    ) -> None:
        """Train and keep the teacher that `blank` takes, where none is kept; here there is none.

        Args:
            config, options: of the run.
            source: of the teacher.
            images: that are trained on; see `stpm.train.datasets.read_image`.
            progress: shows what takes long.

        Raises:
            CheckpointError, DataError: what it is trained with cannot be had.
        """
        return None

    def blank(
        self, config: Any, options: FitOptions, source: TeacherSource
    ) -> tuple[Network, dict[str, str]]:
        """Build an untrained network on a ready teacher.

        Args:
            config, options: of the run.
            source: of the teacher.

        Returns:
            The network, and the teacher's identity: `source` and `sha256` of its weights.

        Raises:
            CheckpointError: the teacher cannot be had.
        """
        ...

    def network(self, config: Any, teacher: StateDict, student: StateDict) -> Network:
        """Build a network with these weights; CheckpointError where they do not fit."""
        ...

    def trainer(
        self,
        network: Any,
        train_images: NDArray[np.uint8],
        held_out_images: NDArray[np.uint8],
        options: FitOptions,
    ) -> Trainer:
        """Begin a run on images uint8 (N,H,W,C) of the input size."""
        ...


def interpolate_to(size: tuple[int, int]) -> Upsample:
    """Return torch's bilinear upsampling to (height, width), half-pixel centres."""
    return lambda level: F.interpolate(level, size=size, mode="bilinear", align_corners=False)
