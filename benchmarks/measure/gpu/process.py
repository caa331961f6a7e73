"""A worker as its parent sees it: asked with a time limit, and what it died of."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from stpm.runtime.errors import BackendError


class WorkerProcess:
    """Context manager of one contender's process; ended when it is left.

    Attributes:
        name: the contender's.
        dead_of: what ended it, in one sentence; "" while it lives.
    """

    def __init__(self, name: str, cache: Path) -> None:
        """Start it.

        Args:
            name: the contender's.
            cache: folder for what libraries keep from one start to the next.
        """
        self.name = name
        self.dead_of = ""
        self._said = tempfile.TemporaryFile()  # noqa: SIM115, closed with the process
        self.started = time.time()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "stpm.benchmarks.measure.gpu.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            process_group=0,
            env=os.environ
            | {
                "XDG_CACHE_HOME": str(cache),
                "TRITON_CACHE_DIR": str(cache / "triton"),
                "TORCHINDUCTOR_CACHE_DIR": str(cache / "inductor"),
            },
        )

    def __enter__(self) -> WorkerProcess:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end()

    def end(self) -> None:
        """End the process, and the compilers that it started."""
        self._kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        self._said.close()

    def ask(self, request: dict[str, Any], limit_s: float) -> dict[str, Any]:
        """Ask, and wait for the answer.

        Raises:
            BackendError: it answers with an error, or, from then on, it is dead or took too long.
        """
        if self.dead_of:
            raise BackendError(self.dead_of)
        limit_s = max(limit_s, 0)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        except OSError:
            raise self._died() from None
        if not select.select([self._process.stdout], [], [], limit_s)[0]:
            self._kill()
            self.dead_of = f"gave no answer to {request['do']!r} within {limit_s:.0f} s"
            raise BackendError(self.dead_of)
        line = self._process.stdout.readline()
        if not line:
            raise self._died()
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise BackendError(answer["error"])
        return answer

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def _died(self) -> BackendError:
        code = self._process.wait()
        reason = f"died of {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"
        self._said.seek(0)
        lines = self._said.read().decode(errors="replace").strip().splitlines()
        self.dead_of = f"{reason}: {lines[-1][:300]}" if lines else reason
        return BackendError(self.dead_of)
