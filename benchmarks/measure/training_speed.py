"""Seconds an epoch of training takes, a plain script's beside them: run this file as a module."""

from __future__ import annotations

import copy
import time
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import numpy as np
import torch
import typer
from torch import Tensor
from torch.nn import functional
from torch.utils.benchmark import Timer
from torch.utils.flop_counter import FlopCounterMode

from stpm.benchmarks.records.header import header
from stpm.benchmarks.records.result_file import check_out, write_result
from stpm.runtime.errors import ParityError
from stpm.runtime.output.console import command, note, say
from stpm.train.methods import TeacherSource, open_method
from stpm.train.methods.stpm.network import ModelConfig, Stpm
from stpm.train.methods.stpm.trainer import StpmTrainer
from stpm.train.options import FitOptions
from stpm.train.pipeline import read_source

MATRIX_SIDE = 1024
LOSS_TOLERANCE = 0.02
"""Largest difference of the first epoch's losses: afterwards the two runs drift apart."""


class PlainScript:
    """STPM's training in torch's own functions: cached targets, autocast, autograd."""

    def __init__(self, model: Stpm, fit: StpmTrainer) -> None:
        """Copy a student and take the run's images and options.

        Args:
            model: before its first step; not changed.
            fit: whose teacher features are cached, and whose order of images is taken.
        """
        self._fit = fit
        self._student = copy.deepcopy(model.student).to(memory_format=torch.contiguous_format)
        self._optimiser = fit.make_optimiser(self._student.parameters())
        self._images, self._held_out = (
            (cached.pixels(index).contiguous(), [level.float() for level in cached.targets(index)])
            for cached, index in (
                (fit.train, torch.arange(len(fit.train))),
                (fit.held_out, torch.arange(len(fit.held_out))),
            )
        )

    def run_epoch(self, epoch: int) -> float:
        """Train on every image once and score those held out; returns the mean loss."""
        options = self._fit.options
        pixels, targets = self._images
        order = np.random.default_rng((options.seed, epoch)).permutation(len(pixels))
        self._student.train()
        total = 0.0
        for index in torch.split(torch.from_numpy(order), options.batch_size):
            with self._fit.autocast():
                features = self._student(pixels[index])
            loss = torch.stack(
                [d.mean() for d in _distances([t[index] for t in targets], features)]
            ).sum()
            self._optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            self._optimiser.step()
            total += loss.item() * len(index)
        self._score_held_out()
        return total / len(pixels)

    @torch.no_grad()
    def _score_held_out(self) -> float:
        self._student.eval()
        pixels, targets = self._held_out
        with self._fit.autocast():
            features = self._student(pixels)
        product: Tensor = torch.ones(())
        for distance in _distances(targets, features):
            product = product * functional.interpolate(
                distance[:, None], self._fit.model.input_size, mode="bilinear"
            )
        return product.mean().item()


def _distances(targets: list[Tensor], features: list[Tensor]) -> list[Tensor]:
    """Return |t - s|^2 of unit features by position, (N,h,w) a level."""
    return [
        (t - functional.normalize(s.float())).square().sum(dim=1)
        for t, s in zip(targets, features, strict=True)
    ]


def epoch_flop(fit: StpmTrainer) -> int:
    """Count an epoch's multiplications and additions: three passes a training image, one a held-out
    one.
    """
    student = copy.deepcopy(fit.model.student).eval()
    pixels = fit.train.pixels(torch.arange(1))
    with FlopCounterMode(display=False) as forward, torch.no_grad():
        student(pixels)
    with FlopCounterMode(display=False) as both:
        loss = torch.stack([level.sum() for level in student(pixels)]).sum()
        loss.backward()  # type: ignore[no-untyped-call]
    counts = both.get_total_flops(), forward.get_total_flops()
    return sum(count * images for count, images in zip(counts, fit.image_counts, strict=True))


def matrix_rate(dtype: torch.dtype) -> float:
    """Measure torch's matrix product in a precision, in FLOP/s."""
    a, b = (torch.randn(MATRIX_SIDE, MATRIX_SIDE).to(dtype) for _ in "ab")
    timer = Timer("a @ b", globals={"a": a, "b": b}, num_threads=torch.get_num_threads())
    return 2 * MATRIX_SIDE**3 / timer.blocked_autorange(min_run_time=1).median


def measure(fit: StpmTrainer, model: Stpm, rounds: int) -> dict[str, Any]:
    """Run epochs of stpm-train and of the plain script in turn.

    Raises:
        ParityError: their first losses differ, so that they do not compute the same.
    """
    fit.cache_teacher(lambda _: None)
    plain = PlainScript(model, fit)
    ours, theirs = [], []
    for epoch in range(rounds):
        record = fit.run_epoch()
        start = time.perf_counter()
        loss = plain.run_epoch(epoch)
        seconds = time.perf_counter() - start
        if not epoch and abs(loss - record.loss) > LOSS_TOLERANCE * record.loss:
            raise ParityError(
                f"the losses of the first epoch are {record.loss:.4f} and {loss:.4f}, "
                f"expected a difference within {LOSS_TOLERANCE:.0%}; the plain script does "
                "not compute the same."
            )
        ours.append(asdict(record))
        theirs.append({"loss": loss, "seconds": seconds})
        note(f"epoch {epoch + 1}/{rounds}: {record.seconds:.1f} s, plain script {seconds:.1f} s")
    flop, rate = epoch_flop(fit), matrix_rate(fit.dtype)
    seconds = median(epoch["seconds"] for epoch in ours)
    return {
        "precision": str(fit.dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "images": fit.image_counts,
        "stpm_train": ours,
        "plain_script": theirs,
        "median_seconds": seconds,
        "plain_script_ratio": median(
            b["seconds"] / a["seconds"] for a, b in zip(ours, theirs, strict=True)
        ),
        "gflop": flop / 1e9,
        "matrix_gflop_per_second": rate / 1e9,
        "least_seconds": flop / rate,
    }


def training_speed(
    good: Annotated[Path, typer.Option(help="Folder of good images.")],
    teacher_weights: Annotated[
        Path | None, typer.Option(show_default="torchvision's cache or hub")
    ] = None,
    input_size: Annotated[int, typer.Option(min=32, help="Side of the network's input.")] = 256,
    rounds: Annotated[int, typer.Option(min=1, help="Epochs of each program, in turn.")] = 5,
    out: Annotated[Path | None, typer.Option(help="JSON file to write.")] = None,
) -> None:
    """Time epochs of stpm-train and of a plain script in turn, on the processor."""
    check_out(out)
    config = ModelConfig(input_size=(input_size, input_size))
    options = FitOptions(device="cpu")
    source = read_source(good, config, options)
    model, _ = open_method("stpm").blank(config, options, TeacherSource(teacher_weights))
    assert isinstance(model, Stpm)
    train, held_out = (source.images[i] for i in (source.train_index, source.held_out_index))
    untouched = copy.deepcopy(model)
    found = measure(StpmTrainer(model, train, held_out, options), untouched, rounds)
    if out is not None:
        write_result(out, header("training_speed", []) | found)
    say(
        f"{found['median_seconds']:.1f} s per epoch in {found['precision']}, a plain script "
        f"takes {found['plain_script_ratio']:.2f} times as long; {found['gflop']:.0f} GFLOP "
        f"at the {found['matrix_gflop_per_second']:.0f} GFLOP/s of matrix products take "
        f"{found['least_seconds']:.1f} s"
    )


main = command(training_speed)

if __name__ == "__main__":
    main()
