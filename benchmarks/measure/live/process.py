"""A station as a process, and what Linux says of it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from stpm.benchmarks.measure.live.surroundings import wait_for
from stpm.benchmarks.records.live import LiveSink, Sample
from stpm.runtime.errors import BackendError

START = 120.0
"""Seconds that a station may take to open its bundle."""
ENDING = 60.0
CATCHING_UP, QUIET = 120.0, 3.0
"""Seconds that it has for what waits when the cameras have ended, and without news after which all
is done."""
_PAGE = "live page: "


class StationProcess:
    """`stpm-live`, with its page."""

    def __init__(self, folder: Path, words: Sequence[str]) -> None:
        """Start it.

        Args:
            folder: for its log.
            words: of the command, without the page.

        Raises:
            BackendError: it does not start.
        """
        self._log = folder / "log"
        program = [sys.executable, "-m", "stpm.runtime.live", *words, "--page", "127.0.0.1:0"]
        with self._log.open("w") as log:
            self._process = subprocess.Popen(program, stdout=subprocess.DEVNULL, stderr=log)
        self._began = time.monotonic()
        wait_for(lambda: self.has_ended or _PAGE in self.log, "the station opens", START)
        self.check()
        self._page = self.log.partition(_PAGE)[2].split()[0]

    @property
    def log(self) -> str:
        """What it said so far."""
        return self._log.read_text()

    @property
    def has_ended(self) -> bool:
        """Whether it runs no more."""
        return self._process.poll() is not None

    def check(self) -> None:
        """Raise BackendError where it has ended by itself."""
        if self.has_ended:
            last = (self.log.strip().splitlines() or ["it said nothing"])[-1]
            raise BackendError(f"the station ended with {self._process.returncode}: {last}")

    def sample(self) -> Sample:
        """Look at its memory and its processor seconds."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        (memory,) = (line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:"))
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        ticks = int(fields[11]) + int(fields[12])  # utime and stime, see proc(5)
        return {
            "at_s": round(time.monotonic() - self._began, 2),
            "memory_mib": round(int(memory) / 1024, 2),
            "processor_s": ticks / os.sysconf("SC_CLK_TCK"),
        }

    def metrics(self, name: str) -> dict[tuple[str, ...], float]:
        """Return the values of one of its metrics, by the values of the labels."""
        with urllib.request.urlopen(f"{self._page}metrics", timeout=ENDING) as answer:
            families = text_string_to_metric_families(answer.read().decode())
        samples = [s for f in families for s in f.samples if s.name == name]
        return {tuple(sample.labels.values()): sample.value for sample in samples}

    def sinks(self) -> list[LiveSink]:
        """Return what it counts of its sinks, by their kind."""
        lost = self.metrics("stpm_sink_lost_total")
        return [
            {"kind": labels[0].partition(":")[0], "sent": int(sent), "lost": int(lost[labels])}
            for labels, sent in self.metrics("stpm_sink_sent_total").items()
        ]

    def let_catch_up(self) -> None:
        """Wait while it still scores or tells, for `CATCHING_UP` at most."""
        ends = time.monotonic() + CATCHING_UP
        before, since = -1.0, time.monotonic()
        while time.monotonic() < ends:
            verdicts = sum(self.metrics("stpm_verdicts_total").values())
            if verdicts != before or any(self.metrics("stpm_sink_waiting").values()):
                before, since = verdicts, time.monotonic()
            elif time.monotonic() - since > QUIET:
                return
            time.sleep(0.2)

    def end(self) -> None:
        """Let it end in order; BackendError where it does not."""
        self._process.terminate()
        try:
            code = self._process.wait(ENDING)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise BackendError(f"the station did not end within {ENDING:g} s.") from None
        if code:
            raise BackendError(f"the station ended with {code}: {self.log.splitlines()[-1]}")

    def kill(self) -> None:
        """End it at once, if it still runs."""
        if not self.has_ended:
            self._process.kill()
            self._process.wait(ENDING)
