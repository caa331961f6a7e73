"""Start-up time and memory of a detector, taken in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from stpm.runtime.errors import BackendError


def footprint(bundle: Path, engine: str, threads: int) -> dict[str, Any]:
    """Open a bundle in a fresh process and score one golden image.

    Args:
        bundle: the folder.
        engine: a key of `stpm.runtime.backends.ENGINES`.
        threads: processor threads of one run; 0 leaves the choice to the engine.

    Returns:
        Names of what was opened; import_ms, build_ms (the engine alone), open_ms (with hashes and
        golden images), first_image_ms; peak_memory_mib of the process, None where the system does
        not tell.

    Raises:
        BackendError: the process fails.
    """
    found = fresh_process(__name__, [str(bundle), engine, str(threads)])
    return {"bundle": bundle.name, "engine": engine, "threads": threads} | found


def fresh_process(module: str, arguments: Sequence[str]) -> dict[str, Any]:
    """Call a module's `main` in a fresh process, and return the JSON that it prints.

    Args:
        module: its full name; `main` is given the start by `time.perf_counter`.
        arguments: in `sys.argv`; the first is the bundle.

    Raises:
        BackendError: the process fails.
    """
    code = f"import time; start = time.perf_counter(); from {module} import main; main(start)"
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = done.stderr.strip().splitlines()[-1:] or ["no message"]
        raise BackendError(f"{arguments[0]}: a fresh process cannot open it ({reason[0]}).")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def main(start: float) -> None:
    """Measure, in the fresh process, and print JSON.

    Args:
        start: of the process, by `time.perf_counter`.
    """
    bundle, engine, threads = sys.argv[1], sys.argv[2], int(sys.argv[3])
    marks = [start]
    from stpm.runtime.backends import open_engine
    from stpm.runtime.bundle.archive import MODEL, Bundle
    from stpm.runtime.detector import Detector

    marks.append(time.perf_counter())
    detector = Detector(bundle, engine, threads=threads)
    marks.append(time.perf_counter())
    detector.infer(detector.bundle.golden().images[:1])
    marks.append(time.perf_counter())
    memory = peak_memory_mib()
    model = Bundle(bundle).read(MODEL)
    marks.append(time.perf_counter())
    open_engine(engine, model, threads=threads)
    marks.append(time.perf_counter())
    importing, opening, first, _, building = (round(1e3 * (b - a), 1) for a, b in pairwise(marks))
    times = {"import_ms": importing, "open_ms": opening, "first_image_ms": first}
    print(json.dumps(times | {"build_ms": building, "peak_memory_mib": memory}))


def peak_memory_mib() -> float | None:
    """Return the most memory that this process has had; None where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit, 1)
