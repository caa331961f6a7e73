"""Does low precision change what a model decides?

`python -m stpm.benchmarks.studies.low_precision` tells.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from scipy.stats import spearmanr

from stpm.benchmarks.records.header import header
from stpm.benchmarks.records.result_file import check_out, write_result
from stpm.export.engines import engine_scorer
from stpm.export.graph import DeploymentGraph
from stpm.export.int8.gate import GATED, LARGEST_LOSS
from stpm.export.int8.images import TrainingImages
from stpm.export.int8.quantize import quantize
from stpm.export.onnx import onnx_from_graph
from stpm.runtime.backends import Engine, Outputs, open_engine
from stpm.runtime.bundle.archive import InputContract
from stpm.runtime.bundle.parity import compare
from stpm.runtime.errors import ParityError
from stpm.runtime.output.console import command, progress, say
from stpm.train.checkpoint import load_checkpoint
from stpm.train.datasets import Category, Sample, find_category, open_category
from stpm.train.evaluate import Scorer, evaluate
from stpm.train.methods import Network


@dataclass(frozen=True)
class Limits:
    """What a precision may change.

    Attributes:
        rank_correlation: Spearman's, of the scores; at least this.
        map_difference: of any pixel, relative to its map's maximum; at most this.
        metric_difference: of image AUROC, pixel AUROC and AUPRO; at most this.
    """

    rank_correlation: float
    map_difference: float
    metric_difference: float


LIMITS = {
    "fp16": Limits(0.9999, 0.005, 0.0005),  # half a unit of the third digit
    "int8": Limits(0.998, 0.2, LARGEST_LOSS),
}


@dataclass(frozen=True)
class Comparison:
    """How far a low-precision graph stands from the FP32 graph on labelled images.

    Attributes:
        precision: of teacher and student.
        image_count: images compared.
        rank_correlation: Spearman's, of the scores.
        map_difference: largest of any pixel, relative to its map's maximum.
        score_difference: largest, relative to the score.
        fp32: metrics by name.
        reduced: the same of the low-precision graph.
    """

    precision: str
    image_count: int
    rank_correlation: float
    map_difference: float
    score_difference: float
    fp32: dict[str, float | None]
    reduced: dict[str, float | None]

    def failures(self) -> list[str]:
        """Name what is not as it must be."""
        limits = LIMITS[self.precision]
        found = []
        if not self.rank_correlation >= limits.rank_correlation:
            found.append(f"rank correlation {self.rank_correlation:.6f}")
        if not self.map_difference <= limits.map_difference:
            found.append(f"map difference {self.map_difference:.2%}")
        for name in GATED:
            full, reduced = self.fp32[name], self.reduced[name]
            if full is None or reduced is None:
                continue
            if not abs(full - reduced) <= limits.metric_difference:
                found.append(f"{name} {full:.4f} and {reduced:.4f}")
        return found


def compare_precisions(
    model: Network, category: Category, precision: str, engine: str, choices: int = 1
) -> list[Comparison]:
    """Run the graphs of both precisions on a category's test images.

    Args:
        model: the trained network.
        category: whose test images are compared.
        precision: of teacher and student: "fp16" or "int8".
        engine: runs both.
        choices: for INT8, how many times to quantise, each time on other good images.
    """
    samples = category.test_samples()
    reference, fp32 = _run(model, "fp32", engine, samples)
    found = []
    for reduced_model in _reduced(model, category, precision, choices):
        outputs, reduced = _run(reduced_model, precision, engine, samples)
        difference = compare(*reference, *outputs)
        rank_correlation = float(spearmanr(reference[1], outputs[1]).statistic)
        found.append(
            Comparison(
                precision,
                len(samples),
                rank_correlation,
                difference.map_difference,
                difference.score_difference,
                fp32,
                reduced,
            )
        )
    return found


def _reduced(model: Network, category: Category, precision: str, choices: int) -> Iterator[Network]:
    if precision != "int8":
        yield model
        return
    images = TrainingImages(category.good_images(), model.input_size)
    for pixels in islice(images.choices(), choices):
        yield quantize(model, pixels)


def _run(
    model: Network, precision: str, engine: str, samples: Sequence[Sample]
) -> tuple[Outputs, dict[str, float | None]]:
    parts: list[Outputs] = []
    scorer = _recording(_graph_scorer(model, precision, engine), parts)
    with progress(precision, len(samples)) as on_images:
        metrics = asdict(evaluate(scorer, samples, on_images).overall)
    anomaly_maps, pred_scores = (np.concatenate(part) for part in zip(*parts, strict=True))
    return (anomaly_maps, pred_scores), metrics


def _graph_scorer(model: Network, precision: str, engine_name: str) -> Scorer:
    graph = DeploymentGraph(model, precision)
    return engine_scorer(graph_engine(graph, engine_name), InputContract(graph.input_size))


def graph_engine(graph: DeploymentGraph, engine_name: str) -> Engine:
    """Open a deployment graph, which takes one image, on an engine."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        onnx_from_graph(graph, path, (1, 1))
        return open_engine(engine_name, path.read_bytes())


def _recording(scorer: Scorer, outputs: list[Outputs]) -> Scorer:
    def score(images: Sequence[NDArray[np.uint8]]) -> Outputs:
        outputs.append(scorer(images))
        return outputs[-1]

    return score


def low_precision(
    models: Annotated[list[Path], typer.Argument(help="Checkpoints.")],
    data: Annotated[Path, typer.Option(help="Root of a data set.")],
    precision: Annotated[str, typer.Option(help="fp16 or int8.")] = "fp16",
    engine: Annotated[str, typer.Option(help="Engine that runs both precisions.")] = "onnxruntime",
    choices: Annotated[
        int, typer.Option(min=1, help="Number of quantisations, each on other good images.")
    ] = 1,
    teacher_weights: Annotated[
        Path | None,
        typer.Option(help="Teacher weights, for the authors' checkpoints, which lack the teacher."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="JSON file to write.")] = None,
) -> None:
    """Compare FP16 or INT8 with FP32, both as ONNX; exit with 1 when they differ too much."""
    if precision not in LIMITS:
        raise typer.BadParameter(f"got --precision {precision!r}, expected {' or '.join(LIMITS)}.")
    check_out(out)
    found: dict[str, list[Comparison]] = {}
    for path in models:
        model = load_checkpoint(path, teacher_weights).model()
        category = open_category(data, find_category(path, data))
        name = path.name.split(".")[0]
        found[name] = compare_precisions(model, category, precision, engine, choices)
    comparisons = {name: [asdict(x) for x in several] for name, several in found.items()}
    if out is not None:
        content = {"engine": engine, "comparisons": comparisons}
        write_result(out, header("low_precision", models) | content)
    say(json.dumps(comparisons, indent=2))
    failures = {name: [x.failures() for x in several] for name, several in found.items()}
    if any(any(several) for several in failures.values()):
        raise ParityError(
            f"{precision} differs too much from FP32 ({failures}); export in another precision."
        )


main = command(low_precision)

if __name__ == "__main__":
    main()
