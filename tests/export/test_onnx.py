"""The ONNX file: its contract, its precisions, and nothing in it that should not travel."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from stpm.export.onnx import OPSETS, opset
from stpm.export.precision import FP32_PREFIX, NETWORK_PREFIXES

ExportOnnx = Callable[..., Path]
WEIGHTS = {
    "fp32": TensorProto.FLOAT,
    "fp16": TensorProto.FLOAT16,
    "bf16": TensorProto.BFLOAT16,
    "int8": TensorProto.INT8,
}
REDUCED = (TensorProto.FLOAT16, TensorProto.BFLOAT16)
CAMERA = {"batch": (2, 2), "camera_size": (96, 112)}
VARIANTS = [*({"precision": precision} for precision in WEIGHTS), CAMERA]


@pytest.fixture(params=VARIANTS, ids=lambda variant: variant.get("precision", "camera"))
def model(request: pytest.FixtureRequest, export_onnx: ExportOnnx) -> onnx.ModelProto:
    return onnx.load(export_onnx(**request.param))


@pytest.fixture
def precision(request: pytest.FixtureRequest) -> str:
    return str(request.node.callspec.params["model"].get("precision", "fp32"))


def reduced_scoring_nodes(model: onnx.ModelProto) -> list[str]:
    """Name the nodes outside teacher and student, casts aside, that make a 16-bit float."""
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    del bare.graph.value_info[:]
    inferred = onnx.shape_inference.infer_shapes(bare, strict_mode=True).graph
    types = {v.name: v.type.tensor_type.elem_type for v in [*inferred.value_info, *inferred.output]}
    return [
        node.name
        for node in inferred.node
        if node.name.startswith(FP32_PREFIX) and node.op_type != "Cast"
        if any(types[output] in REDUCED for output in node.output)
    ]


def score_in_half(model: onnx.ModelProto, node_name: str) -> onnx.ModelProto:
    """Return the model with one node computed in FP16, its neighbours in FP32 as before."""
    broken = onnx.ModelProto()
    broken.CopyFrom(model)
    nodes = broken.graph.node
    place = next(i for i, node in enumerate(nodes) if node.name == node_name)
    node = nodes[place]
    result = node.output[0]
    casts = [
        helper.make_node("Cast", [name], [f"{result}_in{i}"], f"{node.name}_to_copy{i}", to=10)
        for i, name in enumerate(node.input)
    ]
    node.input[:] = [cast.output[0] for cast in casts]
    node.output[0] = f"{result}_half"
    back = helper.make_node("Cast", [node.output[0]], [result], f"{node.name}_to_copy", to=1)
    nodes.insert(place + 1, back)
    for cast in reversed(casts):
        nodes.insert(place, cast)
    return broken


def signature(values: list[onnx.ValueInfoProto]) -> dict[str, tuple[int, list[int | str]]]:
    types = {value.name: value.type.tensor_type for value in values}
    return {
        name: (tensor.elem_type, [d.dim_param or d.dim_value for d in tensor.shape.dim])
        for name, tensor in types.items()
    }


@pytest.mark.parametrize(
    ("variant", "batch", "size"),
    [({"precision": p}, "batch", (64, 64)) for p in WEIGHTS] + [(CAMERA, 2, (96, 112))],
)
def test_contract_of_inputs_and_outputs(
    export_onnx: ExportOnnx, variant: dict[str, object], batch: int | str, size: tuple[int, int]
) -> None:
    graph = onnx.load(export_onnx(**variant)).graph
    assert signature(graph.input) == {"images": (TensorProto.UINT8, [batch, *size, 3])}
    assert signature(graph.output) == {
        "anomaly_map": (TensorProto.FLOAT, [batch, 64, 64]),
        "pred_score": (TensorProto.FLOAT, [batch]),
    }


def test_opset_is_the_one_asked_for(model: onnx.ModelProto, precision: str) -> None:
    assert opset(model) == OPSETS[precision]
    assert {entry.domain for entry in model.opset_import} == {""}


def test_convolutions_are_in_the_precision_without_batch_norm(
    model: onnx.ModelProto, precision: str
) -> None:
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    for node in model.graph.node:  # a quantised weight is one behind its scale
        if node.op_type == "DequantizeLinear" and node.input[0] in types:
            types[node.output[0]] = types[node.input[0]]
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    resizing = 4 if any("resize" in name for name in types) else 0
    count = 16 if precision == "int8" else 15  # one has its inputs in two terms
    assert Counter((n.name.split("/")[0], types[n.input[1]]) for n in convolutions) == {
        ("teacher", WEIGHTS[precision]): count,
        ("student", WEIGHTS[precision]): count,
        ("fp32", TensorProto.FLOAT): 6 + resizing,
    }
    biases = [node.input[2] for node in convolutions if len(node.input) > 2]
    bias = TensorProto.FLOAT if precision == "int8" else WEIGHTS[precision]
    assert {types[name] for name in biases} == {bias}


def test_only_known_operations_remain(model: onnx.ModelProto) -> None:
    unwanted = {"BatchNormalization", "Resize", "Upsample", "Loop", "If", "Expand", "Shape"}
    assert unwanted.isdisjoint(node.op_type for node in model.graph.node)
    assert not model.functions


def test_node_names_say_where_they_stand(model: onnx.ModelProto) -> None:
    names = [node.name for node in model.graph.node]
    assert len(set(names)) == len(names)
    assert all(name.startswith((*NETWORK_PREFIXES, FP32_PREFIX)) for name in names)
    scoring = {n.op_type for n in model.graph.node if n.name.startswith(FP32_PREFIX)}
    assert scoring >= {"ReduceL2", "Div", "Sub", "Mul", "ReduceSum", "Conv", "ReduceMax"}
    assert scoring.isdisjoint({"MatMul", "Relu", "MaxPool"})


def test_scoring_is_in_fp32(model: onnx.ModelProto, precision: str) -> None:
    assert reduced_scoring_nodes(model) == []
    casts = [n for n in model.graph.node if n.name.startswith(FP32_PREFIX) if n.op_type == "Cast"]
    # The pixels; and where the precision is another, into the networks and out of six levels.
    assert len(casts) == (1 if precision in ("fp32", "int8") else 8)


def test_int8_quantises_what_convolutions_read_and_nothing_else(export_onnx: ExportOnnx) -> None:
    graph = onnx.load(export_onnx("int8")).graph
    makers = {output: node for node in graph.node for output in node.output}
    types = {tensor.name: tensor.data_type for tensor in graph.initializer}
    convolutions = [
        n for n in graph.node if n.op_type == "Conv" and n.name.startswith(NETWORK_PREFIXES)
    ]
    read: set[str] = set()
    images = []
    for convolution in convolutions:
        inputs, weights = (makers[name] for name in convolution.input[:2])
        if inputs.op_type == "Transpose":
            images.append(inputs.name)
            inputs = makers[inputs.input[0]]
            assert inputs.name.startswith(FP32_PREFIX)
        else:
            assert inputs.name.startswith(NETWORK_PREFIXES)
        assert inputs.op_type == weights.op_type == "DequantizeLinear"
        assert makers[inputs.input[0]].op_type == "QuantizeLinear"
        assert types[inputs.input[2]] == TensorProto.UINT8
        assert types[weights.input[0]] == TensorProto.INT8
        read |= {inputs.name, weights.name}
    assert len(images) == 2
    assert len(set(images)) == 1
    assert {node.name for node in graph.node if node.op_type == "DequantizeLinear"} == read


def test_int8_takes_a_fourth_of_the_weights(export_onnx: ExportOnnx) -> None:
    sizes = {p: export_onnx(p).stat().st_size for p in ("fp32", "int8")}
    assert sizes["int8"] < 0.3 * sizes["fp32"]


@pytest.mark.parametrize("operation", ["Sub", "Conv", "Mul"])
def test_scoring_in_half_precision_is_seen(export_onnx: ExportOnnx, operation: str) -> None:
    model = onnx.load(export_onnx("fp16"))
    scoring = [node for node in model.graph.node if node.name.startswith(FP32_PREFIX)]
    name = [node.name for node in scoring if node.op_type == operation][-1]
    assert reduced_scoring_nodes(score_in_half(model, name)) == [name]


def test_any_batch_scores_each_image_as_alone(export_onnx: ExportOnnx) -> None:
    session = ort.InferenceSession(export_onnx("fp32"))
    images = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), dtype=np.uint8)
    alone = [session.run(None, {"images": image[None]}) for image in images]
    for count in (2, 3, 4):
        maps, scores = session.run(None, {"images": images[:count]})
        for i in range(count):
            np.testing.assert_allclose(maps[i], alone[i][0][0], rtol=1e-4, atol=1e-5 * scores[i])
            np.testing.assert_allclose(scores[i], alone[i][1][0], rtol=1e-5)
        np.testing.assert_array_equal(scores, maps.max(axis=(1, 2)))


@pytest.mark.parametrize("count", [1, 3])
def test_a_fixed_batch_takes_no_other(export_onnx: ExportOnnx, count: int) -> None:
    session = ort.InferenceSession(export_onnx(**CAMERA))
    with pytest.raises(Exception, match="invalid dimensions"):
        session.run(None, {"images": np.zeros((count, 96, 112, 3), np.uint8)})


def test_the_file_tells_nothing_of_the_machine(export_onnx: ExportOnnx) -> None:
    model = onnx.load(export_onnx("fp32"))
    for weights in model.graph.initializer:
        weights.ClearField("raw_data")
    text = str(model)
    for private in ("stack_trace", ".py", str(Path(__file__).parents[2])):
        assert private not in text


def test_the_same_weights_give_the_same_bytes(export_onnx: ExportOnnx, bundle_path: Path) -> None:
    assert (bundle_path / "model.onnx").read_bytes() == export_onnx("fp32").read_bytes()
