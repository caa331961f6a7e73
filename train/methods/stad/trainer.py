"""Train STAD's students beside a ready teacher."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from stpm.train.epochs import EpochRecord, Stopwatch
from stpm.train.methods.stad.network import Stad
from stpm.train.methods.stad.patch_networks import DESCRIPTOR_SIZE
from stpm.train.options import FitOptions
from stpm.train.run_state import OptimisedRunState

SMALLEST_DEVIATION = 1e-6
"""Keeps components and scores that never vary from being divided by zero."""


class StadTrainer(OptimisedRunState):
    """Trains all students at once, an image at a time; see `Trainer`.

    A step sees every `stride`-th pixel, from another corner each time, and so do the statistics:
    neighbouring patches are nearly the same, and these share all products. Public reimplementations
    take every pixel.
    """

    def __init__(
        self,
        network: Stad,
        train_images: NDArray[np.uint8],
        held_out_images: NDArray[np.uint8],
        options: FitOptions,
    ) -> None:
        super().__init__(options, network.student)
        self.network: Stad = network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._train, self._held_out = map(torch.from_numpy, (train_images, held_out_images))

    def make_optimiser(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """Return Adam with the options' rates."""
        options = self.options
        return torch.optim.Adam(
            parameters, lr=options.learning_rate, weight_decay=options.weight_decay
        )

    @property
    def image_counts(self) -> tuple[int, int]:
        """Numbers of images to train on, and held out."""
        return len(self._train), len(self._held_out)

    @torch.no_grad()
    def prepare(self, on_images: Callable[[int], None]) -> str:
        """Measure the mean and deviation of the teacher's descriptors; returns a line about it."""
        scales = len(self.network.config.patch_sizes)
        moments = _Moments(scales, DESCRIPTOR_SIZE)
        for image in self._train:
            for scale, target in enumerate(self.network.teacher.lattice(self._pixels(image[None]))):
                moments.add(scale, target)
            on_images(1)
        students = self.network.student
        students.target_mean[:], students.target_deviation[:] = moments.result()
        return f"descriptors normalised over {len(self._train)} images, {scales} scales"

    def run_epoch(self, on_step: Callable[[int], None] = lambda _: None) -> EpochRecord:
        """Train one epoch, measure e and v on the held-out images, remember the best students.

        The paper takes the students of the last epoch; here those of the lowest held-out error.

        Raises:
            StpmError: a loss is not finite.
        """
        watch, start = Stopwatch(), time.perf_counter()
        rng = np.random.default_rng((self.options.seed, self.epoch))
        order = torch.from_numpy(rng.permutation(len(self._train)))
        total = 0.0
        batches = torch.split(order, self.options.batch_size)
        for number, index in enumerate(batches):
            self.cool_down(number / len(batches))
            corner = rng.integers(self.network.input_size).tolist()
            value = self._step(self._pixels(self._train[index]), corner, watch)
            self.check_finite("loss", value)
            total += value * len(index)
            on_step(len(index))
        with watch.stage("held_out"):
            held_out = self._standardise()
        is_best = self.finish_epoch(held_out, self.student)
        seconds = time.perf_counter() - start
        loss = total / len(self._train)
        return EpochRecord(self.epoch, loss, held_out, is_best, seconds, dict(watch.seconds))

    def _step(self, x: Tensor, corner: Sequence[int], watch: Stopwatch) -> float:
        with watch.stage("teacher"), torch.no_grad():
            targets = [
                self.network.normalised(scale, target)
                for scale, target in enumerate(self.network.teacher.lattice(x, corner))
            ]
        self.optimiser.zero_grad(set_to_none=True)
        count, total = self.network.config.students, 0.0
        for i, student in enumerate(self.network.student.networks.each()):
            with watch.stage("forward"):
                with self.autocast():
                    output = student.lattice(x, corner)
                loss = (output.float() - targets[i // count]).square().sum(dim=1).mean()
            # One at a time: the students share nothing, and their activations are large.
            with watch.stage("backward"):
                self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
        with watch.stage("optimiser"):
            self.scaler.step(self.optimiser)
            self.scaler.update()
        return total / len(self.network.student.networks.members)

    @torch.no_grad()
    def _standardise(self) -> float:
        """Measure mean and deviation of e and v on the held-out images; returns the mean of e."""
        network, count = self.network, self.network.config.students
        moments = _Moments(len(network.config.patch_sizes), 2)
        for image in self._held_out:
            x = self._pixels(image[None])
            with self.autocast():
                students = network.student.networks.lattice(x)
            for scale, target in enumerate(network.teacher.lattice(x)):
                outputs = students[scale * count : (scale + 1) * count]
                moments.add(scale, network.errors(scale, target, outputs))
        network.student.score_mean[:], network.student.score_deviation[:] = moments.result()
        return float(network.student.score_mean[:, 0].mean())

    def _pixels(self, images: Tensor) -> Tensor:
        normalised: Tensor = self.network.normalise(images.to(self.device))
        return normalised


class _Moments:
    """Means and deviations over the pixels of many images, summed up in FP64."""

    def __init__(self, rows: int, size: int) -> None:
        self._count = [0] * rows
        self._sums = np.zeros((2, rows, size))

    def add(self, row: int, values: Tensor) -> None:
        """Add values (N,size,H,W) to a row."""
        flat = values.double().transpose(0, 1).flatten(1)
        self._count[row] += flat.shape[1]
        self._sums[:, row] += torch.stack([flat.sum(1), flat.square().sum(1)]).cpu().numpy()

    def result(self) -> tuple[Tensor, Tensor]:
        """Return mean and deviation, float32 (rows,size)."""
        mean, square = self._sums / np.array(self._count)[:, None]
        deviation = np.sqrt(np.maximum(square - mean**2, SMALLEST_DEVIATION**2))
        return torch.from_numpy(mean).float(), torch.from_numpy(deviation).float()
