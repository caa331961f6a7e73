"""Train the student: epochs over images whose teacher features are computed once."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from stpm.train.features import TeacherFeatures
from stpm.train.methods import interpolate_to
from stpm.train.replay import (
    Body,
    CudaGraphs,
    Recorder,
    Replayed,
    State,
    repeatable_convolutions,
)
from stpm.train.run_state import OptimisedRunState, Precision
from stpm.train.stpm import Stpm, anomaly_map, matching_loss, squared_distance

BYTES_PER_GB = 10**9


@dataclass(frozen=True)
class FitOptions:
    """How to train. The defaults are the authors'.

    Attributes:
        epochs: passes over the training images.
        batch_size: images a step; the last, smaller batch of an epoch is used.
        learning_rate, momentum, weight_decay: of SGD, constant.
        held_out: share of the good images that choose the best epoch and are not trained on.
        train_share: of the good images to use at all, chosen before any is held out.
        seed: of that choice and of the split, the student's initial weights and the order of the
            images.
        cache_gb: memory for teacher features in 10^9 bytes; beyond it they are recomputed.
        device: "auto", "cpu" or "cuda".
        precision: of the student's convolutions; "auto" is bf16 where the hardware has it.
        compile: whether to run the student through torch.compile (needs a C++ compiler).
    """

    epochs: int = 200
    batch_size: int = 32
    learning_rate: float = 0.4
    momentum: float = 0.9
    weight_decay: float = 1e-4
    held_out: float = 0.2
    train_share: float = 1.0
    seed: int = 0
    cache_gb: float = 4.0
    device: str = "auto"
    precision: Precision = "auto"
    compile: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON or `torch.save`."""
        return asdict(self)


@dataclass(frozen=True)
class EpochRecord:
    """One epoch's outcome: the log's line.

    Attributes:
        epoch: from 1.
        loss: mean training loss.
        held_out: mean anomaly map over the held-out images; the lowest epoch is kept.
        is_best: whether this epoch is the best so far.
        seconds: wall time of the whole epoch.
        seconds_by_stage: the same by stage: teacher, forward, backward, optimiser, wait (until the
            losses can be read) and held_out. A GPU's steps are captured and then replayed: capture
            and replay stand for the first four.
    """

    epoch: int
    loss: float
    held_out: float
    is_best: bool
    seconds: float
    seconds_by_stage: dict[str, float]


@dataclass
class Stopwatch:
    """Adds up wall time by stage; a stage inside another counts as part of it."""

    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    _is_running: bool = False

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count what runs inside towards `name`."""
        if self._is_running:
            yield
            return
        self._is_running, start = True, time.perf_counter()
        try:
            yield
        finally:
            self._is_running = False
            self.seconds[name] += time.perf_counter() - start


class Fit(OptimisedRunState):
    """The state of one training run: `run_epoch` until `epoch` reaches the options' epochs.

    On a GPU a step is one CUDA graph, as is the scoring of a held-out batch; FP16, whose gradient
    scaler asks the host after each step, is launched kernel by kernel.
    """

    def __init__(
        self,
        model: Stpm,
        train_images: NDArray[np.uint8],
        held_out_images: NDArray[np.uint8],
        options: FitOptions,
    ) -> None:
        super().__init__(options, model.student)
        self.model = model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.train = TeacherFeatures(model, train_images, self.device)
        self.held_out = TeacherFeatures(model, held_out_images, self.device)
        self._student = torch.compile(model.student) if options.compile else model.student
        can_record = self.device.type == "cuda" and not self.scaler.is_enabled()
        self.recorder: Recorder | None = CudaGraphs() if can_record else None
        self._steps: tuple[Body, Body] | None = None
        self._watch = Stopwatch()

    def make_optimiser(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """Return SGD with the options' rates."""
        options, on_gpu = self.options, self.device.type == "cuda"
        rate: float | Tensor = options.learning_rate
        if on_gpu:  # a graph reads it anew each time it is replayed
            rate = torch.tensor(rate, device=self.device)
        return torch.optim.SGD(
            parameters,
            lr=rate,
            momentum=options.momentum,
            weight_decay=options.weight_decay,
            fused=on_gpu or None,
        )

    @property
    def image_counts(self) -> tuple[int, int]:
        """Of images to train on, and held out."""
        return len(self.train), len(self.held_out)

    def prepare(self, on_images: Callable[[int], None]) -> str:
        """Compute the teacher's features; returns a line about them."""
        used = self.cache_teacher(on_images)
        cached = self.train.cached_count + self.held_out.cached_count
        total = sum(self.image_counts)
        return f"teacher features of {cached} of {total} images kept, {used / 1e6:.0f} MB"

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
        for index in batches:
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
                return images.pixels(index), *images.targets(index)

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
            loss = matching_loss(targets, self._student_features(pixels))
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
        students = self._student_features(pixels)
        distances = [squared_distance(t, s) for t, s in zip(targets, students, strict=True)]
        upsample = interpolate_to(self.model.config.input_size)
        return anomaly_map(distances, upsample).mean(dim=(1, 2)).sum()

    def _student_features(self, x: Tensor) -> list[Tensor]:
        with self.autocast():
            features: list[Tensor] = self._student(x)
        return features
