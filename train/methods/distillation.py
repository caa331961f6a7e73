"""Train a student on a teacher's features: epochs over images whose features are computed once."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stpm.runtime.errors import StpmError
from stpm.train.epochs import EpochRecord, Stopwatch
from stpm.train.methods.contract import Network
from stpm.train.methods.teacher_features import AugmentedFeatures, TeacherFeatures
from stpm.train.options import FitOptions
from stpm.train.replay import (
    Body,
    CudaGraphs,
    Recorder,
    Replayed,
    State,
    repeatable_convolutions,
)
from stpm.train.run_state import OptimisedRunState

BYTES_PER_GB = 10**9


class Distillation(OptimisedRunState, ABC):
    """A training run whose loss compares the student's features with the teacher's; see `Trainer`.

    A method says what is kept of the teacher's features, its loss and its maps. On a GPU a step is
    one CUDA graph, as is the scoring of a held-out batch; FP16, whose gradient scaler asks the host
    after each step, is launched kernel by kernel.
    """

    def __init__(
        self,
        model: Network,
        train_images: NDArray[np.uint8],
        held_out_images: NDArray[np.uint8],
        options: FitOptions,
    ) -> None:
        super().__init__(options, model.student)
        self.model = model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.train = (
            AugmentedFeatures(model, train_images, self.device, self.targets, options.seed)
            if options.augment
            else TeacherFeatures(model, train_images, self.device, self.targets)
        )
        self.held_out = TeacherFeatures(model, held_out_images, self.device, self.targets)
        self._student = torch.compile(model.student) if options.compile else model.student
        can_record = self.device.type == "cuda" and not self.scaler.is_enabled()
        self.recorder: Recorder | None = CudaGraphs() if can_record else None
        self._steps: tuple[Body, Body] | None = None
        self._watch = Stopwatch()

    @abstractmethod
    def targets(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Make of what the teacher gives, float32 (N,C,h,w) each, what is kept of it."""

    @abstractmethod
    def loss(self, pixels: Tensor, targets: Sequence[Tensor]) -> Tensor:
        """Compute the loss, float32 ().

        Args:
            pixels: normalised images, float32 (N,3,H,W).
            targets: of the teacher, float16 (N,C_l,h_l,w_l) a level.
        """

    @abstractmethod
    def maps(self, pixels: Tensor, targets: Sequence[Tensor]) -> Tensor:
        """Compute the anomaly maps, float32 (N,H,W); see `loss`."""

    @property
    def image_counts(self) -> tuple[int, int]:
        """Numbers of images to train on, and held out."""
        return len(self.train), len(self.held_out)

    def prepare(self, on_images: Callable[[int], None]) -> str:
        """Compute the teacher's features; returns a line about them.

        Raises:
            StpmError: a batch would give batch norm a single value a channel.
        """
        used = self.cache_teacher(on_images)
        self._check_batches()
        cached = self.train.cached_count + self.held_out.cached_count
        total = sum(self.image_counts)
        return f"teacher features of {cached} of {total} images kept, {used / 1e6:.0f} MB"

    def _check_batches(self) -> None:
        sizes = [level.shape[2:] for level in self.train.targets(torch.arange(1))]
        size, count, batch = min(sizes), len(self.train), self.options.batch_size
        if size.numel() == 1 and 1 in (count % batch, batch):
            raise StpmError(
                f"got a batch of one image, of {count} in batches of {batch}, whose features "
                "are 1x1, expected several values for batch norm; choose another "
                "--batch-size or a larger --input-size."
            )

    def cache_teacher(self, on_images: Callable[[int], None]) -> int:
        """Compute the teacher's features; returns the bytes that they take."""
        budget = int(self.options.cache_gb * BYTES_PER_GB)
        self._steps = None
        with repeatable_convolutions():
            used = self.train.fill(budget, self.options.batch_size, on_images)
            return used + self.held_out.fill(budget - used, self.options.batch_size, on_images)

    def load_resume_state(self, state: dict[str, Any], best_student: dict[str, Tensor]) -> None:
        """Continue from `resume_state`."""
        super().load_resume_state(state, best_student)
        self._steps = None  # the optimiser has other tensors now

    def run_epoch(self, on_step: Callable[[int], None] = lambda _: None) -> EpochRecord:
        """Train one epoch, score the held-out images, and remember the best student.

        Args:
            on_step: called after each step with its number of images.

        Raises:
            StpmError: the loss or the held-out map is not finite.
        """
        self._watch = watch = Stopwatch()
        start = time.perf_counter()
        with repeatable_convolutions():
            loss = self._train_epoch(on_step)
            self.check_finite("loss", loss)
            with watch.stage("held_out"):
                value = self._mean_held_out_map()
        self.check_finite("held-out map", value)
        is_best = self.finish_epoch(value, self.student)
        seconds = time.perf_counter() - start
        return EpochRecord(self.epoch, loss, value, is_best, seconds, dict(watch.seconds))

    def _train_epoch(self, on_step: Callable[[int], None]) -> float:
        self.model.student.train()
        step, _ = self._prepared_steps()
        # The order depends on seed and epoch alone, so that a resumed run sees the same batches.
        order = np.random.default_rng((self.options.seed, self.epoch)).permutation(len(self.train))
        batches = self._batches(self.train, torch.from_numpy(order))
        losses = []
        for number, index in enumerate(batches):
            self.cool_down(number / len(batches))
            losses.append(step(index))
            on_step(len(index))
        with self._watch.stage("wait"):
            values: list[float] = torch.stack(losses).tolist()
        weighted = [value * len(index) for value, index in zip(values, batches, strict=True)]
        return sum(weighted) / len(self.train)

    def _mean_held_out_map(self) -> float:
        self.model.student.eval()
        _, score = self._prepared_steps()
        batches = self._batches(self.held_out, torch.arange(len(self.held_out)))
        sums: list[float] = torch.stack([score(index) for index in batches]).tolist()
        return sum(sums) / len(self.held_out)

    def _batches(self, images: TeacherFeatures, order: Tensor) -> Sequence[Tensor]:
        if images.is_resident:
            order = order.to(self.device)
        return torch.split(order, self.options.batch_size)

    def _prepared_steps(self) -> tuple[Body, Body]:
        """Return what trains and what scores the images of an index."""
        if self._steps is None:
            self._steps = (
                self._of_index(self.train, self._train_step, self._changing),
                self._of_index(self.held_out, self._held_out_step, tuple),
            )
        return self._steps

    def _of_index(self, images: TeacherFeatures, step: Body, state: State) -> Body:
        def batch(index: Tensor) -> tuple[Tensor, ...]:
            with self._watch.stage("teacher"):
                return images.batch(index, self.epoch)

        def whole(index: Tensor) -> Tensor:
            return step(*batch(index))

        if self.recorder is None:
            return whole
        if images.is_resident:
            return self._timed(Replayed(whole, self.recorder, state))
        replayed = self._timed(Replayed(step, self.recorder, state))
        return lambda index: replayed(*batch(index))

    def _timed(self, replayed: Replayed) -> Body:
        def timed(*inputs: Tensor) -> Tensor:
            with self._watch.stage("replay" if replayed.knows(*inputs) else "capture"):
                return replayed(*inputs)

        return timed

    def _changing(self) -> list[Tensor]:
        """What a step of training changes in place."""
        kept = self.optimiser.state.values()
        of_optimiser = [v for state in kept for v in state.values() if isinstance(v, Tensor)]
        return [*self.student.parameters(), *self.student.buffers(), *of_optimiser]

    def _train_step(self, pixels: Tensor, *targets: Tensor) -> Tensor:
        """Take one step; returns its loss."""
        with self._watch.stage("forward"):
            loss = self.loss(pixels, targets)
        with self._watch.stage("backward"):
            self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        with self._watch.stage("optimiser"):
            self.scaler.step(self.optimiser)
            self.scaler.update()
            # Not before the backward pass: a graph's gradients are to stand in its own memory.
            self.optimiser.zero_grad(set_to_none=True)
        return loss.detach()

    @torch.no_grad()
    def _held_out_step(self, pixels: Tensor, *targets: Tensor) -> Tensor:
        """Return the sum of the images' mean maps."""
        return self.maps(pixels, targets).mean(dim=(1, 2)).sum()

    def student_features(self, inputs: Any) -> list[Tensor]:
        """Run the student in the run's precision."""
        with self.autocast():
            features: list[Tensor] = self._student(inputs)
        return features
