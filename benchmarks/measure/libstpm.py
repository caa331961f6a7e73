"""What libstpm costs beside its engine, and its resize beside Pillow's.

scripts/test-c builds the program that is measured. Then:

python -m stpm.benchmarks.measure.libstpm bottle.stpm --out benchmarks/results/libstpm.json
"""

from __future__ import annotations

import statistics
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any

import numpy as np
import typer

from stpm.benchmarks.records.header import header
from stpm.benchmarks.records.result_file import check_out, write_result
from stpm.runtime.bundle.archive import Bundle
from stpm.runtime.errors import BackendError
from stpm.runtime.images.preprocess import resize
from stpm.runtime.output.console import command, say

PROGRAM = Path("build/c/ci/bench/stpm_bench")
FRAME = (1024, 1024)
WARM_UP = 20
"""Rounds that are not counted."""


class Program:
    """stpm_bench, which measures when it is asked."""

    def __init__(self, program: Path, bundle: Path) -> None:
        pipe = subprocess.PIPE
        self._process = subprocess.Popen([program, bundle], stdin=pipe, stdout=pipe, text=True)

    def __enter__(self) -> Program:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.communicate()

    def ask(self, *words: object) -> list[float]:
        """Return the numbers that it answers with."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(" ".join(map(str, words)) + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            raise BackendError("stpm_bench failed; its message above gives the reason.")
        return [float(number) for number in answer.split()]


def measure(program: Program, size: tuple[int, int], rounds: int) -> dict[str, list[float]]:
    """Measure in turns: runs with and without a resize; then our resize and Pillow's, in ms."""
    times: dict[str, list[float]] = {}
    for round_ in range(WARM_UP + rounds):
        for name, frame_size in [("input_size", size), ("frame", FRAME)]:
            total_ms, engine_ms, allocations = program.ask("run", *frame_size)
            found = {
                "total_ms": total_ms,
                "engine_ms": engine_ms,
                "overhead_ms": total_ms - engine_ms,
                "allocations": allocations,
            }
            for kind, value in found.items():
                note(times, f"{name}_{kind}", value, round_)
    frame = np.random.default_rng(0).integers(0, 256, (*FRAME, 3), np.uint8)
    for round_ in range(WARM_UP + rounds):
        note(times, "resize_libstpm_ms", program.ask("resize", *FRAME, *size)[0], round_)
        start = time.perf_counter()
        resize(frame, size)
        note(times, "resize_pillow_ms", (time.perf_counter() - start) * 1000, round_)
    return times


def note(times: dict[str, list[float]], name: str, value: float, round_: int) -> None:
    """Keep a value, unless it is of the warm-up."""
    if round_ >= WARM_UP:
        times.setdefault(name, []).append(value)


def report(times: dict[str, list[float]], size: tuple[int, int]) -> dict[str, Any]:
    """Return medians, what they mean, and every raw time."""
    medians = {name: statistics.median(values) for name, values in times.items()}
    share = medians["input_size_overhead_ms"] / medians["input_size_engine_ms"]
    return {
        "frame_size": FRAME,
        "input_size": size,
        "rounds": len(times["resize_pillow_ms"]),
        "median": medians,
        "overhead_share_of_engine": share,
        "largest_allocations_a_run": max(times["input_size_allocations"]),
        "resize_times_faster_than_pillow": medians["resize_pillow_ms"]
        / medians["resize_libstpm_ms"],
        "raw": times,
    }


def run(
    bundle: Annotated[Path, typer.Argument(help="A bundle that was verified with OpenVINO.")],
    out: Annotated[Path, typer.Option(help="JSON file to write.")] = Path("libstpm.json"),
    program: Annotated[Path, typer.Option(help="The built stpm_bench.")] = PROGRAM,
    rounds: Annotated[int, typer.Option(min=1, help="Measurements of each kind.")] = 300,
) -> None:
    """Measure libstpm: its overhead over the engine, its resize, its allocations."""
    check_out(out)
    if not program.is_file():
        raise BackendError(f"{program}: there is no such program; run scripts/test-c first.")
    size = Bundle(bundle).manifest.input.size
    with Program(program.resolve(), bundle) as asked:
        result = report(measure(asked, size, rounds), size)
    write_result(out, header("libstpm", [bundle]) | result)
    for name, value in result["median"].items():
        say(f"{name:28} {value:.4g}")


main = command(run)

if __name__ == "__main__":
    main()
