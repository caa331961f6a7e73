"""What each choice in the graph is worth. `python -m stpm.benchmarks.studies.graph_ablation`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from stpm.benchmarks.measure.contenders import Contender, Map, timed
from stpm.benchmarks.measure.peers import interleaved
from stpm.benchmarks.measure.timing import Ratio, paired_ratio
from stpm.benchmarks.records.header import header
from stpm.benchmarks.records.result_file import check_out, write_result
from stpm.benchmarks.studies.low_precision import graph_engine
from stpm.export.graph import DeploymentGraph
from stpm.export.int8.images import TrainingImages
from stpm.export.int8.quantize import (
    Choice,
    Grid,
    QuantizedConv,
    quantize,
    two_terms_behind_the_image,
    whole_range,
)
from stpm.runtime.backends import Engine, Outputs
from stpm.runtime.bundle.parity import compare
from stpm.runtime.output.console import command, progress, say
from stpm.train.checkpoint import load_checkpoint
from stpm.train.datasets import find_category, open_category, read_images
from stpm.train.methods import Network, Normalise

Change = Callable[[Network, Tensor, str], DeploymentGraph]
"""Takes a trained network, uint8 images (N,H,W,3) to quantise on, and a precision."""
AS_EXPORTED = "as exported"
ENGINE = "openvino"
CUTS = np.linspace(0.3, 1.0, 29)
"""Shares of a range, among which the one of least error is looked for."""
SAMPLE = 1 << 16
"""Values that it is looked for on."""


def as_exported(model: Network, images: Tensor, precision: str) -> DeploymentGraph:
    """Build the graph that `stpm-export` writes."""
    quantized = quantize(model, images) if precision == "int8" else model
    return DeploymentGraph(quantized, precision)


def _interpolated(model: Network, images: Tensor, precision: str) -> DeploymentGraph:
    graph = as_exported(model, images, precision)
    graph.upsample = _Interpolate(graph.map_size)
    return graph


def _channels_first(model: Network, images: Tensor, precision: str) -> DeploymentGraph:
    graph = as_exported(model, images, precision)
    normalise = graph.model.normalise
    graph.model.normalise = _NormaliseChannelsFirst(normalise.mean.tolist(), normalise.std.tolist())
    return graph


def _chosen(choose: Choice) -> Change:
    return lambda model, images, precision: DeploymentGraph(
        quantize(model, images, choose), precision
    )


def _except(left_out: Callable[[str, int], bool]) -> Change:
    """Leave the convolutions of a name and number in FP32."""
    return _chosen(
        lambda name, number, conv, inputs: (
            None
            if left_out(name, number)
            else two_terms_behind_the_image(name, number, conv, inputs)
        )
    )


def _ranges(grid: Callable[[Tensor], Grid]) -> Change:
    """Round the inputs of every convolution, in one term, to the grid that this makes of them."""
    return _chosen(lambda _, __, conv, inputs: QuantizedConv(conv, grid(inputs)))


def _range_of_least_error(inputs: Tensor) -> Grid:
    values = inputs.flatten()
    values = values[:: len(values) // SAMPLE + 1]
    grids = [whole_range(inputs * cut) for cut in CUTS]
    errors = [float((grid.round(values) - values).square().sum()) for grid in grids]
    return grids[int(np.argmin(errors))]


class _Interpolate(nn.Module):
    """Upsampling as torch has it."""

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self._size = size

    def forward(self, level: Tensor) -> Tensor:
        return functional.interpolate(level, self._size, mode="bilinear", align_corners=False)


class _NormaliseChannelsFirst(Normalise):
    """Brings the channels forward before normalising."""

    def forward(self, images: Tensor) -> Tensor:
        pixels = images.float().permute(0, 3, 1, 2)
        return (pixels - self.mean.view(1, 3, 1, 1)) / self.std.view(1, 3, 1, 1)


GRAPH_CHANGES: dict[str, Change] = {
    AS_EXPORTED: as_exported,
    "maps upsampled by Interpolate": _interpolated,
    "channels brought forward first": _channels_first,
}
INT8_CHANGES: dict[str, Change] = {
    AS_EXPORTED: as_exported,
    "maps upsampled by Interpolate": _interpolated,
    "one term": _ranges(whole_range),
    "one term, ranges a quarter wider": _ranges(lambda inputs: whole_range(inputs * 1.25)),
    "one term, ranges of least squared error": _ranges(_range_of_least_error),
    "the second convolution in FP32": _except(lambda _, number: number == 1),
    "layer1 in FP32": _except(lambda name, _: name.startswith("layer1")),
    "layer2 in FP32": _except(lambda name, _: name.startswith("layer2")),
    "layer3 in FP32": _except(lambda name, _: name.startswith("layer3")),
}
CHANGES = {
    "fp32": GRAPH_CHANGES,
    "bf16": GRAPH_CHANGES,
    "int8": INT8_CHANGES,
}
"""By precision and name; the first is what the others are compared with."""


@dataclass(frozen=True)
class Effect:
    """What a graph takes, and how far it stands from the FP32 graph on test images.

    Attributes:
        name: key of `CHANGES`.
        time: beside the graph as exported.
        scatter: standard deviation of a score's ratio to FP32, relative.
        lift: how much more it raises good images' scores than defective ones', relative.
        map_difference: median over images of the largest of any pixel, relative to its map's
            maximum.
    """

    name: str
    time: Ratio
    scatter: float
    lift: float
    map_difference: float


def measure(
    model: Network,
    frames: NDArray[np.uint8],
    anomalous: NDArray[np.bool_],
    images: Tensor,
    precision: str,
    rounds: int,
) -> list[Effect]:
    """Run the graph as exported and its changes on the same images, and time them in turns.

    Args:
        model: the trained network.
        frames: uint8 (N,H,W,3), test images of the network's input size.
        anomalous: bool (N,).
        images: uint8 (M,H,W,3), good ones to quantise on.
        precision: key of `CHANGES`.
        rounds: of ten images each.
    """
    reference = _outputs("fp32", graph_engine(DeploymentGraph(model, "fp32"), ENGINE), frames)
    outputs, running = [], []
    for name, change in CHANGES[precision].items():
        engine = graph_engine(change(model, images, precision), ENGINE)
        outputs.append(_outputs(name, engine, frames))

        def infer(frame: NDArray[np.uint8], engine: Engine = engine) -> Map:
            anomaly_map: Map = engine.run(frame[None])[0][0]
            return anomaly_map

        running.append(Contender(name, precision, timed(infer, list(frames))))
    times = interleaved(running, len(frames), images=10 * rounds, rounds=rounds, warm_up=10)
    return [
        _effect(contender.name, paired_ratio(taken, times[0]), reference, found, anomalous)
        for contender, taken, found in zip(running, times, outputs, strict=True)
    ]


def _outputs(name: str, engine: Engine, frames: NDArray[np.uint8]) -> Outputs:
    parts = []
    with progress(name, len(frames)) as on_images:
        for frame in frames:
            parts.append(engine.run(frame[None]))
            on_images(1)
    anomaly_maps, pred_scores = map(np.concatenate, zip(*parts, strict=True))
    return anomaly_maps, pred_scores


def _effect(
    name: str, time: Ratio, reference: Outputs, found: Outputs, anomalous: NDArray[np.bool_]
) -> Effect:
    ratios = found[1] / reference[1]
    differences = [
        compare(*(part[i : i + 1] for part in (*reference, *found))).map_difference
        for i in range(len(ratios))
    ]
    return Effect(
        name,
        time,
        scatter=float(ratios.std() / ratios.mean()),
        lift=float(ratios[~anomalous].mean() / ratios[anomalous].mean() - 1),
        map_difference=float(np.median(differences)),
    )


def graph_ablation(
    model: Annotated[Path, typer.Argument(help="A checkpoint.")],
    data: Annotated[Path, typer.Option(help="Root of a data set.")],
    precision: Annotated[str, typer.Option(help="fp32, bf16 or int8.")] = "int8",
    rounds: Annotated[int, typer.Option(min=1, help="Interleaved rounds of ten images each.")] = 20,
    teacher_weights: Annotated[
        Path | None,
        typer.Option(help="Teacher weights, for the authors' checkpoints, which lack the teacher."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="JSON file to write.")] = None,
) -> None:
    """Undo each choice in the graph by itself, and compare time and maps on OpenVINO."""
    if precision not in CHANGES:
        raise typer.BadParameter(f"got --precision {precision!r}, expected {', '.join(CHANGES)}.")
    check_out(out)
    network = load_checkpoint(model, teacher_weights).model()
    category = open_category(data, find_category(model, data))
    samples = category.test_samples()
    _, frames = read_images([sample.path for sample in samples], network.input_size)
    anomalous = np.array([sample.is_anomalous for sample in samples])
    good = next(TrainingImages(category.good_images(), network.input_size).choices())
    effects = measure(network, frames, anomalous, good, precision, rounds)
    for effect in effects:
        say(_line(effect))
    if out is not None:
        content = {
            "engine": ENGINE,
            "precision": precision,
            "effects": [asdict(effect) for effect in effects],
        }
        write_result(out, header("graph_ablation", [model]) | content)


def _line(effect: Effect) -> str:
    time = effect.time
    return (
        f"{effect.name}: {time.median:.3f} ({time.low:.3f} to {time.high:.3f}) times the time, "
        f"scatter {effect.scatter:.2%}, lift {effect.lift:+.2%}, "
        f"map difference {effect.map_difference:.2%}"
    )


main = command(graph_ablation)

if __name__ == "__main__":
    main()
