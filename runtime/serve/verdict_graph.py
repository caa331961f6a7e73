"""Thresholds and verdict as ONNX: in the deployment graph, or alone behind a model without them."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from stpm.runtime.bundle.calibration import Calibration
from stpm.runtime.serve.answers import PER_IMAGE, served_threshold, served_warning

SCORE = "pred_score"
FLAT_SCORE = "fp32/serve/pred_score"
"""The graph's own score, (N,)."""
THRESHOLDS = ("threshold", "pixel_threshold")
OPSET, IR_VERSION = 17, 8
"""Of `verdict_alone`: old enough for the ONNX Runtime of every Triton in use."""


def with_verdict(model: bytes, calibration: Calibration) -> bytes:
    """Add the outputs of `stpm.runtime.serve.answers` to a deployment graph.

    Args:
        model: the bundle's ONNX file.
        calibration: of the engine that the server runs.

    Returns:
        An ONNX file whose maps and scores are those of the graph, bit for bit; scores, thresholds
        and verdicts are (N,1).
    """
    proto = onnx.load_from_string(model)
    graph = proto.graph
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [FLAT_SCORE if name == SCORE else name for name in names]
    graph.initializer.append(numpy_helper.from_array(np.array([1], np.int64), "fp32/serve/axis"))
    graph.node.append(_node("Unsqueeze", [FLAT_SCORE, "fp32/serve/axis"], SCORE))
    outputs = {value.name: value for value in graph.output}
    batch = outputs.pop(SCORE).type.tensor_type.shape.dim[0]
    images = batch.dim_param or batch.dim_value
    del graph.output[:]
    graph.output.extend(outputs.values())
    graph.output.append(_per_image(SCORE, images))
    _add_decision(graph, calibration, images)
    onnx.checker.check_model(proto)
    return bytes(proto.SerializeToString())


def verdict_alone(calibration: Calibration) -> bytes:
    """Return a graph that decides on scores which another model gives.

    Args:
        calibration: of the engine that gives them.

    Returns:
        An ONNX file from `pred_score`, float32 (N,1), to the other outputs of `PER_IMAGE`.
    """
    graph = helper.make_graph([], "verdict", [_per_image(SCORE, "batch")], [])
    _add_decision(graph, calibration, "batch")
    opsets = [helper.make_opsetid("", OPSET)]
    proto = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)
    onnx.checker.check_model(proto)
    return bytes(proto.SerializeToString())


def _add_decision(graph: onnx.GraphProto, calibration: Calibration, images: str | int) -> None:
    """Add the outputs beside the score, which is there as (N,1)."""
    constants: dict[str, NDArray[Any]] = {
        "threshold": np.array([[served_threshold(calibration.image_threshold)]], np.float32),
        "warning": np.array([[served_warning(calibration)]], np.float32),
        "pixel_threshold": np.array([[served_threshold(calibration.pixel_threshold)]], np.float32),
    }
    graph.initializer.extend(
        numpy_helper.from_array(value, f"fp32/serve/{name}") for name, value in constants.items()
    )
    graph.node.extend(
        [
            _node("Shape", [SCORE], "fp32/serve/shape"),
            *(_node("Expand", [f"fp32/serve/{t}", "fp32/serve/shape"], t) for t in THRESHOLDS),
            _node("Greater", [SCORE, "threshold"], "is_anomalous"),
            _node("Greater", [SCORE, "fp32/serve/warning"], "fp32/serve/is_above"),
            _node("Xor", ["fp32/serve/is_above", "is_anomalous"], "is_warned"),
        ]
    )
    graph.output.extend(_per_image(name, images) for name in PER_IMAGE if name != SCORE)


def _per_image(name: str, images: str | int) -> onnx.ValueInfoProto:
    kind = TensorProto.BOOL if PER_IMAGE[name] is np.bool_ else TensorProto.FLOAT
    return helper.make_tensor_value_info(name, kind, [images, 1])


def _node(kind: str, inputs: list[str], output: str) -> onnx.NodeProto:
    return helper.make_node(kind, inputs, [output], name=f"fp32/serve/{kind}_{output}")
