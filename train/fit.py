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

from stpm.runtime.errors import StpmError
from stpm.train.features import TeacherFeatures
from stpm.train.methods import interpolate_to
from stpm.train.replay import Replay, repeatable_convolutions
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
        seconds_by_stage: the same by stage (teacher, forward, backward, optimiser, held_out).
    """

    epoch: int
    loss: float
    held_out: float
    is_best: bool
    seconds: float
    seconds_by_stage: dict[str, float]


@dataclass
class Stopwatch:
    """Adds up wall time by stage."""

    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count what runs inside towards `name`."""
        start = time.perf_counter()
        yield
        self.seconds[name] += time.perf_counter() - start


class Fit(OptimisedRunState):
    """The state of one training run: `run_epoch` until `epoch` reaches the options' epochs."""

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
        self._step = Replay(self._step_on_gpu, self._changed_by_a_step)
        self._held_out_sum = Replay(self._sum_of_held_out_maps, lambda: ())
        self._last_loss = float("nan")
        if self.device.type == "cuda":
            self._add_momentum()

    def make_optimiser(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """Return SGD with the options' rates."""
        options = self.options
        return torch.optim.SGD(
            parameters,
            lr=options.learning_rate,
            momentum=options.momentum,
            weight_decay=options.weight_decay,
        )

    @property
    def image_counts(self) -> tuple[int, int]:
        """Of images to train on, and held out."""
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
        size, count = min(sizes), len(self.train)
        if size.numel() == 1 and 1 in (count % self._batch_size, self._batch_size):
            raise StpmError(
                f"got a batch of one image, of {count} in batches of {self._batch_size}, whose "
                "features are 1x1, expected several values for batch norm; take another "
                "--batch-size or a larger --input-size."
            )

    def cache_teacher(self, on_images: Callable[[int], None]) -> int:
        """Compute the teacher's features; returns the bytes that they take."""
        budget = int(self.options.cache_gb * BYTES_PER_GB)
        with repeatable_convolutions():
            used = self.train.fill(budget, self.options.batch_size, on_images)
            return used + self.held_out.fill(budget - used, self.options.batch_size, on_images)

    def run_epoch(self, on_step: Callable[[float], None] = lambda _: None) -> EpochRecord:
        """Train one epoch, score the held-out images, and remember the best student.

        Args:
            on_step: called after each step with the newest loss that is known: the step's, or on
                a GPU, which is not waited for, the mean of the epoch before.

        Raises:
            StpmError: the loss or the held-out map is not finite.
        """
        watch = Stopwatch()
        start = time.perf_counter()
        self.model.student.train()
        # The order depends on seed and epoch alone, so that a resumed run sees the same batches.
        order = np.random.default_rng((self.options.seed, self.epoch)).permutation(len(self.train))
        batches = torch.split(torch.from_numpy(order).to(self._index_device), self._batch_size)
        train_epoch = self._replay_epoch if self._is_captured else self._train_epoch
        with repeatable_convolutions():
            loss = train_epoch(batches, watch, on_step)
            with watch.stage("held_out"):
                value = self._mean_held_out_map()
        self.check_finite("held-out map", value)
        is_best = self.finish_epoch(value, self.student)
        seconds = time.perf_counter() - start
        return EpochRecord(self.epoch, loss, value, is_best, seconds, dict(watch.seconds))

    def load_resume_state(self, state: dict[str, Any], best_student: dict[str, Tensor]) -> None:
        """Continue from `resume_state`; before the first epoch."""
        super().load_resume_state(state, best_student)
        if self.device.type == "cuda":
            self._add_momentum()

    @property
    def _batch_size(self) -> int:
        return self.options.batch_size

    @property
    def _is_captured(self) -> bool:
        """Whether steps are replayed: on a GPU that holds all images, without FP16's scaling."""
        plain = not (self.scaler.is_enabled() or self.options.compile)
        return plain and self.train.is_resident and self.held_out.is_resident

    @property
    def _index_device(self) -> torch.device:
        return self.device if self._is_captured else torch.device("cpu")

    def _train_epoch(
        self, batches: Sequence[Tensor], watch: Stopwatch, on_step: Callable[[float], None]
    ) -> float:
        total = 0.0
        for index in batches:
            with watch.stage("teacher"):
                targets = self.train.targets(index)
            with watch.stage("forward"):
                loss = matching_loss(targets, self._student_features(self.train.pixels(index)))
                value = float(loss.detach())
            self.check_finite("loss", value)
            with watch.stage("backward"):
                self.optimiser.zero_grad(set_to_none=True)
                self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            with watch.stage("optimiser"):
                self.scaler.step(self.optimiser)
                self.scaler.update()
            total += value * len(index)
            on_step(value)
        return total / len(self.train)

    def _replay_epoch(
        self, batches: Sequence[Tensor], watch: Stopwatch, on_step: Callable[[float], None]
    ) -> float:
        """Train an epoch by replaying its steps; the loss is read once, at the end."""
        total = torch.zeros((), device=self.device)
        with watch.stage("steps"):
            for index in batches:
                total += self._step(index) * len(index)
                on_step(self._last_loss)
            self._last_loss = float(total) / len(self.train)
        self.check_finite("loss", self._last_loss)
        return self._last_loss

    def _step_on_gpu(self, index: Tensor) -> Tensor:
        """Train one step; returns its loss."""
        loss = matching_loss(
            self.train.targets(index), self._student_features(self.train.pixels(index))
        )
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()
        return loss.detach()

    def _changed_by_a_step(self) -> list[Tensor]:
        momentum = [state["momentum_buffer"] for state in self.optimiser.state.values()]
        return [*self.student.parameters(), *self.student.buffers(), *momentum]

    def _add_momentum(self) -> None:
        """Begin with a momentum of zero, which is what the first step would make of none."""
        for parameter in self.student.parameters():
            state = self.optimiser.state[parameter]
            if state.get("momentum_buffer") is None:
                state["momentum_buffer"] = torch.zeros_like(parameter)

    @torch.no_grad()
    def _mean_held_out_map(self) -> float:
        self.model.student.eval()
        add_up = self._held_out_sum if self._is_captured else self._sum_of_held_out_maps
        indices = torch.arange(len(self.held_out), device=self._index_device)
        sums = [add_up(index).clone() for index in torch.split(indices, self._batch_size)]
        return float(torch.stack(sums).sum()) / len(self.held_out)

    @torch.no_grad()
    def _sum_of_held_out_maps(self, index: Tensor) -> Tensor:
        upsample = interpolate_to(self.model.config.input_size)
        students = self._student_features(self.held_out.pixels(index))
        targets = self.held_out.targets(index)
        distances = [squared_distance(t, s) for t, s in zip(targets, students, strict=True)]
        return anomaly_map(distances, upsample).mean(dim=(1, 2)).sum()

    def _student_features(self, x: Tensor) -> list[Tensor]:
        with self.autocast():
            features: list[Tensor] = self._student(x)
        return features
