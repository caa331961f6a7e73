"""Everything to be measured on a GPU, in one run: `benchmarks/device.sh`, see docs/gpu.md."""

from __future__ import annotations

import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer

from stpm.benchmarks.measure.gpu.cases import bars
from stpm.benchmarks.measure.gpu.contenders import CONTENDERS, SABOTEURS
from stpm.benchmarks.measure.gpu.run import DevicePlan, measure
from stpm.benchmarks.measure.gpu.training import Trainings, train_models
from stpm.benchmarks.records.header import header
from stpm.benchmarks.records.result_file import check_out, write_result
from stpm.runtime.backends.gpu import gpu_count
from stpm.runtime.errors import DataError
from stpm.runtime.output.console import command, note


def device(
    model: Annotated[Path, typer.Option(help="NAME.pt, with its NAME.stpm beside it.")],
    out: Annotated[Path, typer.Option(help="JSON file to write.")],
    minutes: Annotated[
        float,
        typer.Option(
            min=0.1, help="Time limit in minutes; cases not finished by then are left out."
        ),
    ] = 8.0,
    contender: Annotated[
        list[str] | None,
        typer.Option(
            help=f"What to measure; may be repeated. {' and '.join(SABOTEURS)} try the script.",
            show_default="all",
        ),
    ] = None,
    batches: Annotated[str, typer.Option(help="Images in one run.")] = "1,2,4,8,16,32,64,128,256",
    sizes: Annotated[str, typer.Option(help="Sides of the input in pixels.")] = "256,512",
    rounds: Annotated[int, typer.Option(min=1, help="Number of runs per case.")] = 50,
    train_data: Annotated[
        Path | None, typer.Option(help="Categories to train, in the layout of MVTec AD.")
    ] = None,
    teacher_weights: Annotated[
        Path | None, typer.Option(help="Teacher weights, for training.")
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Epochs of each training.")] = 200,
    seeds: Annotated[int, typer.Option(min=1, help="Trainings of each category.")] = 3,
    train_minutes: Annotated[
        float, typer.Option(min=0.1, help="Minutes reserved for the trainings, at the end.")
    ] = 3.0,
    commit: Annotated[str, typer.Option(help="Commit of the checkout, recorded in the file.")] = "",
    on: Annotated[
        str, typer.Option("--device", help="Device; cpu only tries out the script.")
    ] = "cuda",
) -> None:
    """Check every GPU engine against FP32, time it against torch and the roofline, and train.

    Each contender runs in its own process, and the file is written after every case: what
    crashes, hangs or is left out for lack of time is named in it and affects nothing else.
    """
    start = time.monotonic()
    _check(model, contender, on)
    check_out(out)
    deadline = start + 60 * minutes
    # As an exception: worker processes end with this one.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    content = header("device", [model]) | {"device": on, "commit": commit}

    def write() -> None:
        content["bars"] = bars(content)
        content["minutes"] = (time.monotonic() - start) / 60
        write_result(out, content)

    with tempfile.TemporaryDirectory() as folder:
        plan = DevicePlan(
            model,
            tuple(contender or CONTENDERS),
            _numbers(batches),
            _numbers(sizes),
            rounds,
            on,
            deadline - 60 * train_minutes if train_data else deadline,
            Path(folder),
        )
        measure(plan, content, write)
    if train_data is not None:
        plan_of = Trainings(train_data, teacher_weights, epochs, seeds, on, deadline)
        train_models(plan_of, content, write)
    write()
    for name in content["left_out"]:
        note(f"left out for lack of time: {name}")
    note(f"{out}: written after {content['minutes']:.1f} minutes")


def _check(model: Path, contenders: list[str] | None, on: str) -> None:
    if on == "cuda" and not gpu_count():
        raise DataError(
            "there is no NVIDIA GPU here; run this on a machine with one, or try it with "
            "--device cpu."
        )
    if not (model.is_file() and model.with_suffix(".stpm").is_dir()):
        raise DataError(
            f"{model}: got no checkpoint with a bundle beside it, expected NAME.pt and "
            "NAME.stpm; give the path of the checkpoint."
        )
    for name in contenders or ():
        if name not in (*CONTENDERS, *SABOTEURS):
            raise typer.BadParameter(
                f"got --contender {name!r}, expected one of {', '.join(CONTENDERS)}."
            )


def _numbers(text: str) -> list[int]:
    parts = text.split(",")
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise typer.BadParameter(f"got {text!r}, expected numbers such as 1,2,4.")
    return [int(part) for part in parts]


main = command(device)

if __name__ == "__main__":
    main()
