"""Show a training run: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from stpm.train.epochs import EpochRecord
from stpm.train.methods import Trainer


class TrainingProgress:
    """Context manager that shows the teacher's pass and the epochs of one run."""

    def __init__(self, fit: Trainer) -> None:
        self._fit = fit
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[text]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        images = fit.image_counts[0]
        self._epochs = self._bar.add_task(
            "epochs",
            total=fit.options.epochs * images,
            completed=fit.epoch * images,
            text="",
            start=False,
        )

    def __enter__(self) -> TrainingProgress:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def cache_teacher(self) -> None:
        """Do what comes before the first epoch under a bar of its own."""
        task = self._bar.add_task("teacher", total=sum(self._fit.image_counts), text="")
        line = self._fit.prepare(lambda count: self._bar.advance(task, count))
        self._bar.remove_task(task)
        self._console.print(line)
        self._bar.start_task(self._epochs)

    def on_step(self, images: int) -> None:
        """Advance by the images of a step."""
        self._bar.advance(self._epochs, images)

    def on_epoch(self, record: EpochRecord) -> None:
        """Write the epoch's line."""
        self._bar.update(self._epochs, text=f"loss {record.loss:.4f}")
        stages = " ".join(f"{name} {s:.1f}" for name, s in record.seconds_by_stage.items())
        self._console.print(
            f"epoch {record.epoch}/{self._fit.options.epochs}: loss {record.loss:.5f}, "
            f"held-out map {record.held_out:.3e}{' (best)' if record.is_best else ''}, "
            f"{record.seconds:.1f} s ({stages})"
        )
