"""The deployment graph with thresholds and verdict as outputs, for servers that run it bare."""

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
    constants: dict[str, NDArray[Any]] = {
        "axis": np.array([1], np.int64),
        "threshold": np.array([[served_threshold(calibration.image_threshold)]], np.float32),
        "warning": np.array([[served_warning(calibration)]], np.float32),
        "pixel_threshold": np.array([[served_threshold(calibration.pixel_threshold)]], np.float32),
    }
    graph.initializer.extend(
        numpy_helper.from_array(value, f"fp32/serve/{name}") for name, value in constants.items()
    )
    graph.node.extend(
        [
            _node("Unsqueeze", [FLAT_SCORE, "fp32/serve/axis"], SCORE),
            _node("Shape", [SCORE], "fp32/serve/shape"),
            *(_node("Expand", [f"fp32/serve/{t}", "fp32/serve/shape"], t) for t in THRESHOLDS),
            _node("Greater", [SCORE, "threshold"], "is_anomalous"),
            _node("Greater", [SCORE, "fp32/serve/warning"], "fp32/serve/is_above"),
            _node("Xor", ["fp32/serve/is_above", "is_anomalous"], "is_warned"),
        ]
    )
    outputs = {value.name: value for value in graph.output}
    batch = outputs[SCORE].type.tensor_type.shape.dim[0]
    images = batch.dim_param or batch.dim_value
    kept = [value for name, value in outputs.items() if name != SCORE]
    del graph.output[:]
    graph.output.extend(kept)
    for name, dtype in PER_IMAGE.items():
        kind = TensorProto.BOOL if dtype is np.bool_ else TensorProto.FLOAT
        graph.output.append(helper.make_tensor_value_info(name, kind, [images, 1]))
    onnx.checker.check_model(proto)
    return bytes(proto.SerializeToString())


def _node(kind: str, inputs: list[str], output: str) -> onnx.NodeProto:
    return helper.make_node(kind, inputs, [output], name=f"fp32/serve/{kind}_{output}")
