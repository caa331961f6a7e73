"""What a training run leaves on disk: the checkpoint of its last finished epoch, and the log."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path

from stpm.train.checkpoint import Checkpoint, save_checkpoint
from stpm.train.epochs import EpochRecord
from stpm.train.methods import Trainer

WRITE_EVERY_S = 5.0
"""What a killed run may lose; an epoch on a GPU takes less than writing its checkpoint."""


class RunFiles:
    """Keeps the last finished epoch, and writes it and the log every few seconds.

    The log is written from what the checkpoint holds of it, so that they agree whenever a run goes
    on, wherever the last one was killed.
    """

    def __init__(self, fit: Trainer, blank: Checkpoint, out: Path) -> None:
        """Write nothing yet.

        Args:
            fit, blank: from `stpm.train.pipeline.open_run`.
            out: the checkpoint's path; the log is `log_path(out)`.
        """
        self._fit, self._blank, self._out = fit, blank, out
        self._lines: list[dict[str, object]] = list(blank.resume.get("log", []))
        self._pending: Checkpoint | None = None
        self._written_at = float("-inf")

    def finish_epoch(self, record: EpochRecord) -> None:
        """Keep the run as it is after an epoch; write it where the last time is long ago."""
        self._lines.append(asdict(record))
        self._pending = self._checkpoint()
        is_last = self._fit.epoch == self._fit.options.epochs
        if is_last or time.monotonic() - self._written_at >= WRITE_EVERY_S:
            self.write()

    def write(self) -> None:
        """Write what was kept since the last time, if anything was."""
        if self._pending is None:
            return
        save_checkpoint(self._pending, self._out)
        self._fit.written_epoch = self._pending.resume["epoch"]
        lines = [json.dumps(line) + "\n" for line in self._pending.resume["log"]]
        log_path(self._out).write_text("".join(lines), encoding="utf-8")
        self._pending = None
        self._written_at = time.monotonic()

    def _checkpoint(self) -> Checkpoint:
        fit, blank = self._fit, self._blank
        outcome = {
            "best_epoch": fit.best_epoch,
            "held_out_map": fit.best_held_out,
            "epochs_done": fit.epoch,
        }
        return Checkpoint(
            blank.config,
            fit.best_student,
            blank.teacher,
            blank.teacher_id,
            blank.training | outcome,
            fit.resume_state() | {"log": list(self._lines)},
        )


def log_path(checkpoint: Path) -> Path:
    """Return where the JSON lines of a training run stand."""
    return checkpoint.with_suffix(".log.jsonl")
