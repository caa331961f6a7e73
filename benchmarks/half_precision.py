"""Does half precision change what a model decides? `python -m stpm.benchmarks.half_precision`."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from scipy.stats import spearmanr

from stpm.benchmarks.environment import environment
from stpm.export.graph import DeploymentGraph
from stpm.export.onnx import onnx_from_graph
from stpm.runtime.backends import Outputs, open_engine
from stpm.runtime.bundle import InputContract
from stpm.runtime.console import command, progress
from stpm.runtime.detector import fit_input, run_in_batches
from stpm.runtime.errors import ParityError
from stpm.runtime.parity import compare
from stpm.train.checkpoint import load_checkpoint
from stpm.train.datasets import labelled_samples
from stpm.train.evaluate import Scorer, evaluate
from stpm.train.methods import Network

MIN_RANK_CORRELATION = 0.9999
MAX_MAP_DIFFERENCE = 0.005
"""Of a map's maximum."""
MAX_AUROC_DIFFERENCE = 0.0005
"""Half a unit of the third digit."""


@dataclass(frozen=True)
class Agreement:
    """How far the half-precision graph stands from the FP32 graph on labelled images.

    Attributes:
        image_count: images compared.
        rank_correlation: Spearman's, of the scores.
        map_difference: largest of any pixel, relative to its map's maximum.
        score_difference: largest, relative to the score.
        fp32: metrics by name.
        reduced: the same of the half-precision graph.
    """

    image_count: int
    rank_correlation: float
    map_difference: float
    score_difference: float
    fp32: dict[str, float | None]
    reduced: dict[str, float | None]

    def failures(self) -> list[str]:
        """Name what is not as it must be."""
        found = []
        if not self.rank_correlation >= MIN_RANK_CORRELATION:
            found.append(f"rank correlation {self.rank_correlation:.6f}")
        if not self.map_difference <= MAX_MAP_DIFFERENCE:
            found.append(f"map difference {self.map_difference:.2%}")
        for name in ("image_auroc", "pixel_auroc"):
            full, half = self.fp32[name], self.reduced[name]
            if full is None or half is None:
                continue
            if not abs(full - half) <= MAX_AUROC_DIFFERENCE:
                found.append(f"{name} {full:.4f} and {half:.4f}")
        return found


def measure_agreement(model: Network, data: Path, precision: str) -> Agreement:
    """Run the graph of both precisions in ONNX Runtime on a category's test images.

    Args:
        model: the trained network.
        data: a category in the layout of MVTec AD.
        precision: of teacher and student: "fp16".
    """
    samples = labelled_samples(data)
    outputs: dict[str, list[Outputs]] = {}
    metrics: dict[str, dict[str, float | None]] = {}
    for name in ("fp32", precision):
        scorer = _recording(_graph_scorer(model, name), outputs.setdefault(name, []))
        with progress(f"{data.name}, {name}", len(samples)) as on_images:
            metrics[name] = asdict(evaluate(scorer, samples, on_images).overall)
    reference, reduced = (
        tuple(np.concatenate(part) for part in zip(*outputs[name], strict=True))
        for name in ("fp32", precision)
    )
    difference = compare(*reference, *reduced)
    return Agreement(
        len(samples),
        float(spearmanr(reference[1], reduced[1]).statistic),
        difference.map_difference,
        difference.score_difference,
        metrics["fp32"],
        metrics[precision],
    )


def _graph_scorer(model: Network, precision: str) -> Scorer:
    graph = DeploymentGraph(model, precision)
    contract = InputContract(graph.input_size)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        onnx_from_graph(graph, path, contract.batch)
        engine = open_engine("onnxruntime", path.read_bytes())

    def score(images: Sequence[NDArray[np.uint8]]) -> Outputs:
        inputs = np.stack([fit_input(image, contract) for image in images])
        return run_in_batches(engine, inputs, contract)

    return score


def _recording(scorer: Scorer, outputs: list[Outputs]) -> Scorer:
    def score(images: Sequence[NDArray[np.uint8]]) -> Outputs:
        outputs.append(scorer(images))
        return outputs[-1]

    return score


def half_precision(
    models: Annotated[list[Path], typer.Argument(help="Checkpoints.")],
    data: Annotated[Path, typer.Option(help="Root of a data set in the layout of MVTec AD.")],
    teacher_weights: Annotated[
        Path | None, typer.Option(help="For the authors' checkpoints, which lack the teacher.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="JSON file to write.")] = None,
) -> None:
    """Compare FP16 with FP32, both as ONNX; exit with 1 when they differ too much."""
    found: dict[str, Agreement] = {}
    for path in models:
        name = path.name.split(".")[0]
        model = load_checkpoint(path, teacher_weights).model()
        found[name] = measure_agreement(model, data / name, "fp16")
    content: dict[str, Any] = {"environment": environment(), "engine": "onnxruntime"}
    content["categories"] = {name: asdict(agreement) for name, agreement in found.items()}
    text = json.dumps(content, indent=2)
    if out is not None:
        out.write_text(text + "\n")
    typer.echo(text)
    failures = {name: agreement.failures() for name, agreement in found.items()}
    if any(failures.values()):
        raise ParityError(f"FP16 differs too much from FP32 ({failures}); export in FP32.")


main = command(half_precision)

if __name__ == "__main__":
    main()
