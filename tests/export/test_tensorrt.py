"""Real TensorRT-RTX engines of the real graph, built without a GPU."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

from stpm.export.cli import main
from stpm.export.graph import DeploymentGraph
from stpm.export.onnx import onnx_from_graph
from stpm.export.precision import check_network_types, check_scoring_types
from stpm.export.tensorrt import build_engine
from stpm.runtime import BackendError, Bundle, Detector, ParityError, load_image
from stpm.runtime.backends.gpu import gpu_count
from stpm.runtime.backends.tensorrt.build import BuildOptions, engine_from_onnx
from stpm.runtime.backends.tensorrt.library import load_library
from stpm.train.backbones import pyramid
from stpm.train.checkpoint import load_checkpoint
from stpm.train.methods import distances
from stpm.train.methods.stpm.network import ModelConfig, Stpm

pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")

Size = tuple[int, int]
RTX = "tensorrt-rtx"
TYPES = {"fp32": "f32", "fp16": "f16"}
CAMERA = (300, 320)
VARIANTS: list[tuple[str, Size, Size | None]] = [
    ("fp32", (1, 1), None),
    ("fp16", (1, 1), None),
    ("fp16", (1, 16), None),
    ("fp16", (2, 2), CAMERA),
    ("fp32", (1, 16), CAMERA),
]


@pytest.fixture(scope="module")
def model() -> Stpm:
    """ResNet-18 twice, at 256x256, with random weights."""
    config = ModelConfig()
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return Stpm(config, pyramid(config.backbone, config.levels)).eval()


@pytest.fixture(scope="module")
def graph(model: Stpm, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., bytes]:
    folder = tmp_path_factory.mktemp("graphs")

    def export(precision: str, batch: Size, camera_size: Size | None) -> bytes:
        path = folder / f"{precision}{batch}{camera_size}.onnx"
        if not path.exists():
            onnx_from_graph(DeploymentGraph(model, precision, camera_size), path, batch)
        return path.read_bytes()

    return export


@pytest.mark.parametrize(("precision", "batch", "camera_size"), VARIANTS)
def test_engines_of_the_real_graph(
    precision: str, batch: Size, camera_size: Size | None, graph: Callable[..., bytes]
) -> None:
    content = graph(precision, batch, camera_size)
    first, second = (build_engine(RTX, content, precision, batch, BuildOptions()) for _ in "ab")
    assert first.content is not None
    # The weights, and little else: the kernels are made on the GPU that runs it.
    weights = sum(
        int(np.prod(tensor.dims)) * (2 if tensor.data_type == TensorProto.FLOAT16 else 4)
        for tensor in onnx.load_from_string(content).graph.initializer
    )
    assert 1.0 < len(first.content) / weights < 1.4
    if batch[0] == batch[1]:
        assert first == second

    types = first.layer_precisions
    for network in ("teacher", "student"):
        convolutions = {
            n: t
            for n, t in types.items()
            if n.startswith(f"{network}/node_") and "conv" in n.lower()
        }
        assert len(convolutions) == 15
        assert set(convolutions.values()) == {TYPES[precision]}
    scoring = {t for name, t in types.items() if name.startswith("fp32/") and "copy" not in name}
    assert scoring == {"f32"}
    assert first.built_with["device"] == "portable"


def test_engines_for_chosen_gpus(graph: Callable[..., bytes]) -> None:
    content = graph("fp16", (1, 1), None)
    engines = {
        archs: build_engine(RTX, content, "fp16", (1, 1), BuildOptions(gpu_archs=archs))
        for archs in (("sm86",), ("sm89", "sm120"))
    }
    assert [e.built_with["device"] for e in engines.values()] == ["sm86", "sm89,sm120"]
    assert len({engine.content for engine in engines.values()}) == 2


@pytest.mark.parametrize(("precision", "batch", "camera_size"), VARIANTS)
def test_turing_and_newer_gpus_share_an_engine(
    precision: str, batch: Size, camera_size: Size | None, graph: Callable[..., bytes]
) -> None:
    archs = ("sm75", "sm86", "sm89", "sm120")
    content = graph(precision, batch, camera_size)
    built = build_engine(RTX, content, precision, batch, BuildOptions(gpu_archs=archs))
    assert built.built_with["device"] == "sm75,sm86,sm89,sm120"


def test_gpus_that_cannot_be_built_for(graph: Callable[..., bytes]) -> None:
    content = graph("fp16", (1, 1), None)
    with pytest.raises(BackendError, match=r"no GPU architecture sm90, expected sm75, .*sm120"):
        build_engine(RTX, content, "fp16", (1, 1), BuildOptions(gpu_archs=("sm90",)))


def test_scoring_in_fp16_is_caught(
    model: Stpm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def half_features(features: torch.Tensor) -> torch.Tensor:
        return features / torch.linalg.vector_norm(features, dim=1, keepdim=True)

    monkeypatch.setattr(distances, "unit_features", half_features)
    path = tmp_path / "half.onnx"
    onnx_from_graph(DeploymentGraph(model, "fp16"), path, (1, 1))
    with pytest.raises(ParityError, match=r"6 layers \(fp32/node_div_1, .*scoring part"):
        build_engine(RTX, path.read_bytes(), "fp16", (1, 1), BuildOptions())


def test_networks_in_another_precision_are_caught(graph: Callable[..., bytes]) -> None:
    content = graph("fp32", (1, 1), None)
    with pytest.raises(ParityError, match=r"\(teacher/node_Conv.*in f32, expected f16"):
        build_engine(RTX, content, "fp16", (1, 1), BuildOptions())
    types = {"teacher/a": "f16", "fp32/cast_to_copy": "f16"}
    check_network_types("any", types, "fp16")
    check_scoring_types("any", types)
    with pytest.raises(ParityError, match=r"1 layers \(student/b\) .* in bf16, expected f16"):
        check_network_types("any", {"teacher/a": "f16", "student/b": "bf16"}, "fp16")


def quantized_convolution(inputs: type[np.generic]) -> bytes:
    """A convolution with a scale a filter, whose inputs are quantised to this type around 0."""
    constants = {
        "scale": np.float32(0.05),
        "zero": inputs(0),
        "weights": np.random.default_rng(0).integers(-127, 128, (16, 8, 3, 3), dtype=np.int8),
        "scales": np.full(16, 0.01, np.float32),
        "zeros": np.zeros(16, np.int8),
    }
    nodes = [
        ("QuantizeLinear", ["images", "scale", "zero"], "q", {}),
        ("DequantizeLinear", ["q", "scale", "zero"], "x", {}),
        ("DequantizeLinear", ["weights", "scales", "zeros"], "w", {"axis": 0}),
        ("Conv", ["x", "w"], "y", {}),
        ("Relu", ["y"], "map", {}),
    ]
    graph = helper.make_graph(
        [helper.make_node(k, i, [o], name=f"student/{o}", **kw) for k, i, o, kw in nodes],
        "g",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 8, 9, 9])],
        [helper.make_tensor_value_info("map", TensorProto.FLOAT, [1, 16, 7, 7])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    opsets = [helper.make_opsetid("", 20)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


def test_int8_convolutions_are_seen() -> None:
    library = load_library(RTX)
    content = quantized_convolution(np.int8)
    options = BuildOptions(gpu_archs=("sm86", "sm120"))
    types = engine_from_onnx(library, content, (1, 1), options, "").layer_precisions
    named = {name: kind for name, kind in types.items() if name.startswith("student/")}
    assert named == {
        "student/q": "i8",
        "student/x": "f32",
        "student/w": "f32",
        "student/y": "i8",
        "student/map": "f32",
    }


def test_integers_without_sign_are_refused() -> None:
    with pytest.raises(
        BackendError, match=r"only signed integers, got node student/q quantised to uint8"
    ):
        build_engine(RTX, quantized_convolution(np.uint8), "fp32", (1, 1), BuildOptions())


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"no graph", "cannot read the graph's file: .*Failed to parse"),
        (
            helper.make_model(
                helper.make_graph(
                    [helper.make_node("Det", ["images"], ["score"], name="fp32/node_det")],
                    "g",
                    [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, 3])],
                    [helper.make_tensor_value_info("score", TensorProto.FLOAT, [1])],
                ),
                opset_imports=[helper.make_opsetid("", 20)],
                ir_version=10,
            ).SerializeToString(),
            r"cannot read the graph's node fp32/node_det \(Det\)",
        ),
    ],
)
def test_graphs_that_cannot_be_taken(content: bytes, match: str) -> None:
    with pytest.raises(BackendError, match=match) as caught:
        build_engine(RTX, content, "fp32", (1, 1), BuildOptions())
    assert "\n" not in str(caught.value)


def run(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert "Traceback" not in result.output
    return result.exit_code, result.stdout, result.stderr


@pytest.mark.skipif(gpu_count() > 0, reason="with a GPU the engine is verified")
@pytest.mark.usefixtures("exports_once")
def test_a_bundle_with_an_engine_that_nobody_ran(
    checkpoint_path: Path, tmp_path: Path, data_root: Path
) -> None:
    out = tmp_path / "weave.stpm"
    arguments = ("--ckpt", checkpoint_path, "--out", out, "--batch", "1..4", "--fp16")
    code, stdout, stderr = run(*arguments, "--engine", RTX, "--engine", "onnxruntime")
    assert (code, stdout) == (0, f"{out}\n"), stderr
    assert "not verified: there is no GPU here" in stderr

    bundle = Bundle(out)
    record = bundle.manifest.engines[RTX]
    assert (record.verified, record.file, record.parity) == (False, "tensorrt-rtx.engine", {})
    assert bundle.manifest.engines["onnxruntime"].verified
    assert record.built_with["model_sha256"] == bundle.manifest.files["model.onnx"].sha256
    assert record.layer_precisions["fp32/node_linalg_vector_norm"] == "f32"
    assert len(bundle.read("tensorrt-rtx.engine")) > 1_000_000
    # Until it is calibrated on a GPU, its thresholds are those of FP32 torch.
    images = np.stack([load_image(p) for p in load_checkpoint(checkpoint_path).held_out_images()])
    with torch.no_grad():
        scores = load_checkpoint(checkpoint_path).model()(torch.from_numpy(images))[1]
    assert record.calibration.image_count == len(images)
    assert record.calibration.image_threshold == pytest.approx(float(scores.max()), rel=1e-5)

    assert Detector(out).engine_name == "onnxruntime"
    with pytest.raises(BackendError, match="tensorrt-rtx needs an NVIDIA GPU"):
        Detector(out, RTX)


@pytest.mark.usefixtures("exports_once")
def test_without_a_gpu_no_engine_of_it_is_tried(checkpoint_path: Path, tmp_path: Path) -> None:
    if gpu_count():
        pytest.skip("there is a GPU")
    out = tmp_path / "weave.stpm"
    code, _, stderr = run("--ckpt", checkpoint_path, "--out", out, "--batch", "1..4")
    assert code == 0, stderr
    assert "tensorrt" not in stderr
    assert sorted(json.loads((out / "manifest.json").read_text())["files"]) == [
        "golden.npz",
        "model.onnx",
    ]
    code, _, stderr = run(
        "--ckpt", checkpoint_path, "--out", tmp_path / "b", "--engine", "tensorrt"
    )
    assert code == 1
    assert "tensorrt needs an NVIDIA GPU, and none was found" in stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("--gpu-arch", "sm86"),
        ("--engine", RTX, "--gpu-arch", "turing"),
        ("--engine", RTX, "--gpu-arch", "sm86;sm89"),
        ("--engine", RTX, "--batch", "1..4", "--best-batch", "5"),
        ("--engine", RTX, "--optimization-level", "6"),
        ("--engine", RTX, "--workspace-mb", "0"),
        ("--engine", "onnxruntime", "--workspace-mb", "512"),
        ("--engine", "onnxruntime", "--optimization-level", "3"),
        ("--engine", "onnxruntime", "--best-batch", "1"),
    ],
)
def test_wrong_usage(arguments: tuple[str, ...], checkpoint_path: Path) -> None:
    code, stdout, _ = run("--ckpt", checkpoint_path, *arguments)
    assert (code, stdout) == (2, "")


def test_the_library_is_not_installed(
    checkpoint_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *_: None if "rtx" in name else find(name)
    )
    out = tmp_path / "weave.stpm"
    code, _, stderr = run("--ckpt", checkpoint_path, "--out", out, "--engine", RTX)
    assert code == 1
    assert "run pip install 'stpm[tensorrt-rtx]'" in stderr
    assert not out.exists()
