"""What an epoch of training reports, and where its seconds went."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


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
