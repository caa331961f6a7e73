"""From the deployment graph to ONNX."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper

from stpm.export.graph import DeploymentGraph
from stpm.export.int8.quantize import WEIGHT_LIMIT
from stpm.export.precision import FP32_PREFIX, NETWORK_PREFIXES
from stpm.runtime.errors import ExportError

OPSETS = {"fp32": 20, "fp16": 20, "bf16": 22, "int8": 20}
"""Asked of the exporter, by precision; convolutions know bf16 from 22 on."""


def onnx_from_graph(graph: DeploymentGraph, path: Path, batch: tuple[int, int]) -> onnx.ModelProto:
    """Write a deployment graph as ONNX, weights inside, and return it.

    Args:
        graph: the deployment graph.
        path: the file to write.
        batch: smallest and largest batch; equal for a fixed one.

    Raises:
        ExportError: torch cannot express the graph in ONNX.
    """
    smallest, largest = batch
    # An example of one image would make torch take the batch for constant.
    count = max(largest, 2) if smallest < largest else largest
    example = torch.zeros(count, *graph.input_size, graph.channels)
    dynamic = torch.export.Dim("batch", min=smallest, max=largest) if smallest < largest else None
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                graph.eval(),
                (example.to(torch.uint8),),
                input_names=["images"],
                output_names=["anomaly_map", "pred_score"],
                dynamic_shapes=({0: dynamic},) if dynamic is not None else None,
                opset_version=OPSETS[graph.precision],
                dynamo=True,
                verbose=False,
            )
    except Exception as error:
        # The exporter wraps whatever goes wrong inside in errors of its own.
        raise ExportError(
            f"torch {torch.__version__} cannot export this network ({str(error).splitlines()[0]}); "
            "try another backbone or torch version."
        ) from error
    assert program is not None
    model = program.model_proto
    _name_by_scope(model)
    _store_integers(model)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
    return model


def opset(model: onnx.ModelProto) -> int:
    """Return the version of ONNX's own operator set that the model asks for."""
    return next(
        int(entry.version) for entry in model.opset_import if entry.domain in ("", "ai.onnx")
    )


def _name_by_scope(model: onnx.ModelProto) -> None:
    """Begin each node's name with where it stands, so that engines report precisions by place.

    The exporter's own record of places is dropped, as it quotes the paths of this machine.
    """
    for node in model.graph.node:
        scopes = {entry.key: entry.value for entry in node.metadata_props}.get(
            "pkg.torch.onnx.name_scopes", ""
        )
        inside = [p for p in NETWORK_PREFIXES if f"'model.{p.rstrip('/')}" in scopes]
        node.name = f"{inside[0] if inside else FP32_PREFIX}{node.name}"
        del node.metadata_props[:]


def _store_integers(model: onnx.ModelProto) -> None:
    """Round quantised weights here, so that the file holds integers and no weight twice."""
    graph = model.graph
    constants = {constant.name: constant for constant in graph.initializer}
    for node in [
        n for n in graph.node if n.op_type == "QuantizeLinear" and n.input[0] in constants
    ]:
        weights, scales = (numpy_helper.to_array(constants[name]) for name in node.input[:2])
        steps = weights / scales.reshape(-1, *[1] * (weights.ndim - 1))
        integers = np.rint(steps).clip(-WEIGHT_LIMIT, WEIGHT_LIMIT).astype(np.int8)
        graph.initializer.remove(constants[node.input[0]])
        graph.initializer.append(numpy_helper.from_array(integers, node.output[0]))
        graph.node.remove(node)
