"""Everything to be measured on a GPU, in one run: `benchmarks/device.sh`, see docs/gpu.md."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from numpy.typing import NDArray

from stpm.benchmarks.accuracy import Candidate, measure
from stpm.benchmarks.device_contenders import Contender, open_contenders
from stpm.benchmarks.environment import environment
from stpm.benchmarks.result_file import write_result
from stpm.benchmarks.roofline import Peak, cost_of, measure_peak
from stpm.runtime.bundle import Bundle, Golden
from stpm.runtime.console import command, note
from stpm.runtime.errors import DataError, StpmError
from stpm.runtime.listing import folders_in
from stpm.runtime.parity import TOLERANCES, compare
from stpm.runtime.preprocess import resize
from stpm.train.checkpoint import load_checkpoint
from stpm.train.datasets import labelled_samples
from stpm.train.evaluate import torch_scorer
from stpm.train.stpm import Stpm

WARM_UP = 5
"""Runs of a contender before it is timed at a batch size."""
BARS = {"host_ms": 0.35, "device_ms": 0.25, "images_per_second": 25_000, "over_eager_fp32": 10}
"""What an H200 is to reach at 256x256: batch 1, batch 1, the best batch, batch 1."""


@dataclass(frozen=True)
class Plan:
    """What to measure.

    Attributes:
        models: folder with NAME.pt and NAME.stpm for each model.
        batches: images in one run.
        sizes: sides of the network's input in pixels.
        rounds: times that each case is run, in turn with the others.
        device: "cuda", or "cpu" to try the script.
    """

    models: Path
    batches: Sequence[int]
    sizes: Sequence[int]
    rounds: int
    device: str


def measure_models(plan: Plan) -> dict[str, Any]:
    """Check and time every contender on every model and size.

    Raises:
        DataError: the folder holds no model.
    """
    checkpoints = sorted(p for p in plan.models.glob("*.pt") if p.with_suffix(".stpm").is_dir())
    if not checkpoints:
        raise DataError(
            f"{plan.models}: holds no NAME.pt with a NAME.stpm beside it; put models there."
        )
    peak = measure_peak(plan.device)
    models = {p.stem: _stpm(p) for p in checkpoints}
    correctness = {}
    for path in checkpoints:
        golden = Bundle(path.with_suffix(".stpm")).golden()
        note(f"{path.stem}: comparing with FP32 on {len(golden.images)} real images")
        correctness[path.stem] = _check(models[path.stem], golden, plan.device)
    first = next(iter(models.values()))
    images = Bundle(checkpoints[0].with_suffix(".stpm")).golden().images
    timings = [_time_size(first, size, images, plan) for size in plan.sizes]
    return {
        "peak": asdict(peak),
        "correctness": correctness,
        "roofline": [_roofline(first, size, plan, peak) for size in plan.sizes],
        "timings": timings,
        "bars": _bars(timings),
    }


def _stpm(path: Path) -> Stpm:
    model = load_checkpoint(path).model()
    if not isinstance(model, Stpm):
        raise DataError(f"{path}: is of another method, expected stpm; take it out.")
    return model


def _check(model: Stpm, golden: Golden, device: str) -> dict[str, Any]:
    """Hold every contender's maps of real images against those of FP32 torch."""
    with tempfile.TemporaryDirectory() as folder:
        contenders, refused = open_contenders(model, len(golden.images), device, Path(folder))
        found: dict[str, Any] = dict(refused)
        for contender in contenders:
            try:
                outputs = contender.on_host(golden.images)
            except (RuntimeError, StpmError) as error:
                found[contender.name] = str(error)
                continue
            parity = compare(golden.anomaly_maps, golden.pred_scores, *outputs)
            holds = parity.holds(TOLERANCES[contender.precision])
            found[contender.name] = asdict(parity) | {"holds": holds}
    return found


def _time_size(model: Stpm, size: int, images: NDArray[np.uint8], plan: Plan) -> dict[str, Any]:
    sized = Stpm(replace(model.config, input_size=(size, size)), model.teacher)
    sized.load_state_dict(model.state_dict())
    sized.eval()
    frames = np.stack([resize(image, (size, size)) for image in images])
    cases = []
    with tempfile.TemporaryDirectory() as folder:
        contenders, refused = open_contenders(sized, max(plan.batches), plan.device, Path(folder))
        for batch in plan.batches:
            note(f"{size}x{size}, batch {batch}: {', '.join(c.name for c in contenders)}")
            host = np.resize(frames, (batch, *frames.shape[1:]))
            cases += _time_batch(contenders, host, plan)
    return {"size": [size, size], "cases": cases, "refused": refused}


def _time_batch(
    contenders: Sequence[Contender], host: NDArray[np.uint8], plan: Plan
) -> list[dict[str, Any]]:
    on_device = torch.from_numpy(host).to(plan.device)
    runs: list[tuple[dict[str, Any], Any]] = []
    for contender in contenders:
        for transfers in (True, False):
            case: dict[str, Any] = {
                "contender": contender.name,
                "precision": contender.precision,
                "batch": len(host),
                "host_transfers": transfers,
                "seconds": [],
            }
            work: Any = (contender.on_host, host)
            if not transfers:
                if contender.on_device is None:
                    continue
                work = (contender.on_device, on_device)
            try:
                for _ in range(WARM_UP):
                    work[0](work[1])
            except (RuntimeError, StpmError) as error:
                case["error"] = str(error)
                runs.append((case, None))
                continue
            runs.append((case, work))
    # In turn, so that clocks and heat touch all alike.
    for _ in range(plan.rounds):
        for case, work in runs:
            if work is not None:
                start = time.perf_counter()
                work[0](work[1])
                case["seconds"].append(time.perf_counter() - start)
    return [case for case, _ in runs]


def _roofline(model: Stpm, size: int, plan: Plan, peak: Peak) -> dict[str, Any]:
    bytes_a_value = 2 if plan.device == "cuda" else 4
    cost = cost_of(model, (size, size), bytes_a_value)
    least = {str(n): peak.least_seconds(cost.batch(n)) for n in plan.batches}
    return {"size": [size, size], "image": asdict(cost), "least_seconds": least}


def _bars(timings: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Hold the fastest at 256x256 against what is wished; None where it was not measured."""
    cases = [c for timing in timings if timing["size"] == [256, 256] for c in timing["cases"]]
    median = {
        (c["contender"], c["batch"], c["host_transfers"]): float(np.median(c["seconds"]))
        for c in cases
        if c["seconds"]
    }
    ours = {key: value for key, value in median.items() if not key[0].startswith("torch ")}
    host = [s for (_, batch, transfers), s in ours.items() if batch == 1 and transfers]
    device = [s for (_, batch, transfers), s in ours.items() if batch == 1 and not transfers]
    eager = median.get(("torch eager fp32", 1, True))
    reached = {
        "host_ms": min(host) * 1e3 if host else None,
        "device_ms": min(device) * 1e3 if device else None,
        "images_per_second": max((key[1] / s for key, s in ours.items()), default=None),
        "over_eager_fp32": eager / min(host) if eager and host else None,
    }
    return {name: {"bar": bar, "reached": reached[name]} for name, bar in BARS.items()}


def train_models(
    data: Path, teacher_weights: Path | None, epochs: int, seeds: int, device: str
) -> list[dict[str, Any]]:
    """Train each category below `data` from several seeds; seconds and accuracy of each."""
    found = []
    for category in folders_in(data):
        for seed in range(seeds):
            with tempfile.TemporaryDirectory() as folder:
                out = Path(folder) / f"{category.name}.pt"
                arguments = ["--data", data, "--category", category.name, "--out", out]
                arguments += ["--seed", seed, "--epochs", epochs, "--device", device]
                arguments += ["--teacher-weights", teacher_weights] if teacher_weights else []
                program = "from stpm.train.cli import main; main()"
                start = time.perf_counter()
                subprocess.run([sys.executable, "-c", program, *map(str, arguments)], check=True)
                seconds = time.perf_counter() - start
                model = _stpm(out)
            accuracy = _accuracy(model, category)
            found.append(
                {"category": category.name, "seed": seed, "epochs": epochs, "seconds": seconds}
                | accuracy
            )
    return found


def _accuracy(model: Stpm, category: Path) -> dict[str, Any]:
    candidate = Candidate(category.name, "torch", "fp32", torch_scorer(model))
    return asdict(measure(candidate, labelled_samples(category)).evaluation.overall)


def device(
    models: Annotated[Path, typer.Option(help="Folder with NAME.pt and NAME.stpm.")],
    out: Annotated[Path, typer.Option(help="JSON file to write.")],
    batches: Annotated[str, typer.Option(help="Images in one run.")] = "1,2,4,8,16,32,64,128",
    sizes: Annotated[str, typer.Option(help="Sides of the input in pixels.")] = "256,512",
    rounds: Annotated[int, typer.Option(min=1, help="Times that each case is run.")] = 50,
    train_data: Annotated[
        Path | None, typer.Option(help="Categories to train, in the layout of MVTec AD.")
    ] = None,
    teacher_weights: Annotated[Path | None, typer.Option(help="For training.")] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Of each training.")] = 200,
    seeds: Annotated[int, typer.Option(min=1, help="Trainings of each category.")] = 3,
    commit: Annotated[str, typer.Option(help="Of the checkout, noted in the file.")] = "",
    on: Annotated[str, typer.Option("--device", help="cpu tries the script.")] = "cuda",
) -> None:
    """Check every GPU engine against FP32, time it beside torch and the roofline, and train."""
    if on == "cuda" and not torch.cuda.is_available():
        raise DataError("torch sees no GPU; run this where there is one, or try --device cpu.")
    # FP32 means FP32: no TF32 in the reference.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    plan = Plan(models, _numbers(batches), _numbers(sizes), rounds, on)
    content: dict[str, Any] = {"kind": "device", "device": on, "commit": commit}
    content |= {"environment": environment()} | measure_models(plan)
    write_result(out, content)  # what is measured is kept, whatever becomes of the training
    if train_data is not None:
        content["training"] = train_models(train_data, teacher_weights, epochs, seeds, on)
        write_result(out, content)
    note(f"{out}: written")


def _numbers(text: str) -> list[int]:
    parts = text.split(",")
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise typer.BadParameter(f"got {text!r}, expected numbers such as 1,2,4.")
    return [int(part) for part in parts]


main = command(device)

if __name__ == "__main__":
    main()
