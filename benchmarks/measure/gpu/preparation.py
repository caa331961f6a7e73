"""What is done around the timing, in processes of its own as well: graphs, roofline, accuracy."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from stpm.benchmarks.measure.gpu.torch_contenders import sized_model


def prepare(request: dict[str, Any]) -> dict[str, Any]:
    """Write the graph of a size for up to `batch` images, and real images of that size."""
    from stpm.export.graph import DeploymentGraph
    from stpm.export.onnx import onnx_from_graph
    from stpm.runtime.bundle.archive import Bundle
    from stpm.runtime.images.preprocess import resize

    size = request["size"]
    graph = DeploymentGraph(sized_model(Path(request["checkpoint"]), size), "fp16")
    onnx_from_graph(graph, Path(request["onnx"]), (1, request["batch"]))
    images = Bundle(request["bundle"]).golden().images
    np.save(request["frames"], np.stack([resize(image, (size, size)) for image in images]))
    return {"golden_size": images.shape[1:3]}


def roofline(request: dict[str, Any]) -> dict[str, Any]:
    """Measure what the device can do at best, and what each batch must take at least."""
    from stpm.benchmarks.measure.roofline import cost_of, measure_peak

    device = request["device"]
    peak = measure_peak(device)
    rows = []
    for size in request["sizes"]:
        model = sized_model(Path(request["checkpoint"]), size)
        cost = cost_of(model, (size, size), 2 if device == "cuda" else 4)
        least = {str(n): peak.least_seconds(cost.batch(n)) for n in request["batches"]}
        rows.append({"size": size, "image": asdict(cost), "least_seconds": least})
    return {"peak": asdict(peak), "rows": rows}


def accuracy(request: dict[str, Any]) -> dict[str, Any]:
    """Measure a checkpoint's accuracy on the labelled images of a category's folder."""
    from stpm.benchmarks.measure.accuracy import Candidate, measure
    from stpm.train.checkpoint import load_checkpoint
    from stpm.train.datasets import labelled_samples
    from stpm.train.evaluate import checkpoint_scorer

    checkpoint = load_checkpoint(Path(request["checkpoint"]))
    category = Path(request["category"])
    candidate = Candidate(category.name, "torch", "fp32", checkpoint_scorer(checkpoint))
    overall = measure(candidate, labelled_samples(category)).evaluation.overall
    return {"best_epoch": checkpoint.training["best_epoch"]} | asdict(overall)
