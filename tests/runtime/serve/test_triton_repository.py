"""`stpm-serve triton`: a model repository, held against Triton's published schema."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from bundles import EXPECTED, FILES, WISHED, content_of
from typer.testing import CliRunner

from stpm.runtime.bundle.archive import (
    GOLDEN,
    Bundle,
    InputContract,
    npz_bytes,
    write_bundle,
)
from stpm.runtime.errors import BundleError

pytest.importorskip("onnx")
pytest.importorskip("tritonclient.grpc")
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from stpm.runtime.serve import triton_repository
from stpm.runtime.serve.cli import main
from stpm.runtime.serve.options import TritonBackend, TritonOptions
from stpm.runtime.serve.triton_config import model_config

PYTHON = TritonOptions(TritonBackend.PYTHON)


def run(*words: object, code: int = 0) -> str:
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exit_code == code, result.output
    return result.output


def config_of(model: Path) -> Any:
    text = (model / "config.pbtxt").read_text(encoding="utf-8")
    return text_format.Parse(text, model_config_pb2.ModelConfig())


def shapes(tensors: Any) -> dict[str, tuple[str, list[int]]]:
    names = model_config_pb2.DataType
    return {t.name: (names.Name(t.data_type), list(t.dims)) for t in tensors}


def test_the_graph_is_served_with_everything_that_decides(weave: Path, tmp_path: Path) -> None:
    output = run("triton", weave, tmp_path / "models", "--instances", 2, "--max-queue", 9)
    assert str(tmp_path / "models/weave/1") in output
    model = tmp_path / "models/weave"
    config, manifest = config_of(model), Bundle(weave).manifest
    assert (config.name, config.backend, config.max_batch_size) == ("weave", "onnxruntime", 4)
    assert shapes(config.input) == {"images": ("TYPE_UINT8", [64, 64, 3])}
    assert shapes(config.output) == {
        "anomaly_map": ("TYPE_FP32", [64, 64]),
        "pred_score": ("TYPE_FP32", [1]),
        "threshold": ("TYPE_FP32", [1]),
        "pixel_threshold": ("TYPE_FP32", [1]),
        "is_anomalous": ("TYPE_BOOL", [1]),
        "is_warned": ("TYPE_BOOL", [1]),
    }
    (group,) = config.instance_group
    assert (group.count, group.kind) == (2, model_config_pb2.ModelInstanceGroup.KIND_CPU)
    policy = config.dynamic_batching.default_queue_policy
    assert policy.max_queue_size == 9
    assert config.version_policy.WhichOneof("policy_choice") == "all"
    calibration = manifest.engines["onnxruntime"].calibration
    values = {key: value.string_value for key, value in config.parameters.items()}
    assert (
        values["1.model_sha256"] == hashlib.sha256((weave / "model.onnx").read_bytes()).hexdigest()
    )
    assert float(values["1.image_threshold"]) == calibration.image_threshold
    assert float(values["1.pixel_threshold"]) == calibration.pixel_threshold
    assert [path.name for path in (model / "1").iterdir()] == ["model.onnx"]


def test_the_warm_up_is_the_golden_images(weave: Path, tmp_path: Path) -> None:
    run("triton", weave, tmp_path / "models")
    model = tmp_path / "models/weave"
    golden = Bundle(weave).golden().images
    samples = config_of(model).model_warmup
    assert len(samples) == len(golden)
    for sample, image in zip(samples, golden, strict=True):
        value = sample.inputs["images"]
        assert list(value.dims) == list(image.shape)
        assert (model / "warmup" / value.input_data_file).read_bytes() == image.tobytes()


def test_a_further_version_stands_beside_the_first(
    weave: Path, stricter: Path, tmp_path: Path
) -> None:
    run("triton", weave, tmp_path / "models", "--backend", "python")
    before = content_of(tmp_path / "models/weave/1")
    run("triton", stricter, tmp_path / "models", "--backend", "python", "--engine", "onnxruntime")
    model = tmp_path / "models/weave"
    assert content_of(model / "1") == before
    assert Bundle(model / "2/bundle.stpm").manifest.engines == Bundle(stricter).manifest.engines
    values = {key: value.string_value for key, value in config_of(model).parameters.items()}
    assert (values["1.engine"], values["2.engine"]) == ("", "onnxruntime")
    assert float(values["2.image_threshold"]) == -1.0
    assert [path.name for path in tmp_path.iterdir()] == ["models"]


def test_versions_of_another_interface_are_refused(weave: Path, tmp_path: Path) -> None:
    run("triton", weave, tmp_path / "models")
    before = content_of(tmp_path)
    output = run("triton", weave, tmp_path / "models", "--backend", "python", code=1)
    assert "another input, output, batch or backend" in output
    assert content_of(tmp_path) == before
    run("triton", weave, tmp_path / "models", "--backend", "python", "--name", "weave_py")


def test_a_folder_of_something_else_is_left_alone(weave: Path, tmp_path: Path) -> None:
    (tmp_path / "models/weave").mkdir(parents=True)
    (tmp_path / "models/weave/config.pbtxt").write_text("no protobuf")
    assert "remove it" in run("triton", weave, tmp_path / "models", code=1)
    assert list(content_of(tmp_path)) == ["models/weave/config.pbtxt"]


@pytest.mark.parametrize("step", ["with_verdict", "config_text", "_publish"])
def test_what_fails_leaves_nothing(
    weave: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(triton_repository, step, full)
    assert "No space left" in run("triton", weave, tmp_path / "models", code=1)
    assert content_of(tmp_path) == {}


def test_an_altered_bundle_is_refused(weave: Path, tmp_path: Path) -> None:
    content = bytearray((weave / "model.onnx").read_bytes())
    content[-1] ^= 1
    altered = tmp_path / "weave.stpm"
    altered.mkdir()
    for name, kept in content_of(weave).items():
        (altered / name).write_bytes(bytes(content) if name == "model.onnx" else kept)
    assert "hash" in run("triton", altered, tmp_path / "models", code=1)
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--engine", "openvino-gpu"], "a known engine"),
        (["--engine", "openvino"], "--backend python"),
        (["--engine", "onnxruntime-cuda"], "has no threshold"),
        (["--engine", "tensorrt", "--backend", "python"], "has no threshold"),
        (["--name", "../weave"], "model name"),
    ],
)
def test_what_cannot_be_served_is_said(
    weave: Path, tmp_path: Path, flags: list[str], said: str
) -> None:
    assert said in run("triton", weave, tmp_path / "models", *flags, code=1)
    assert not (tmp_path / "models").exists()


def part(tmp_path: Path, contract: InputContract, channels: int = 3) -> Bundle:
    golden = replace(EXPECTED, images=EXPECTED.images[..., :channels])
    files = FILES | {GOLDEN: npz_bytes(golden)}
    write_bundle(tmp_path / "part.stpm", replace(WISHED, input=contract), files)
    return Bundle(tmp_path / "part.stpm")


def test_a_graph_of_fixed_batch_names_it_in_its_shapes(tmp_path: Path) -> None:
    bundle = part(tmp_path, InputContract((4, 6), (2, 2)))
    config = model_config(bundle, "part", 1, TritonOptions(engine="onnxruntime"))
    assert config.max_batch_size == 0
    assert shapes(config.input) == {"images": ("TYPE_UINT8", [2, 4, 6, 3])}
    assert shapes(config.output)["anomaly_map"] == ("TYPE_FP32", [2, 2, 3])
    assert shapes(config.output)["is_anomalous"] == ("TYPE_BOOL", [2, 1])


def test_a_graph_for_grey_takes_one_channel(tmp_path: Path) -> None:
    bundle = part(tmp_path, InputContract((4, 6), (1, 2), channels=1), channels=1)
    config = model_config(bundle, "part", 1, TritonOptions(engine="onnxruntime"))
    assert shapes(config.input) == {"images": ("TYPE_UINT8", [4, 6, 1])}
    dims = [list(warm_up.inputs["images"].dims) for warm_up in config.model_warmup]
    assert dims == [[4, 6, 1]] * len(dims)


@pytest.mark.parametrize(("resize", "sides"), [("host", [-1, -1]), ("graph", [4, 6])])
def test_python_takes_any_size_that_the_runtime_does(
    tmp_path: Path, resize: str, sides: list[int]
) -> None:
    bundle = part(tmp_path, InputContract((4, 6), (1, 1), resize))
    config = model_config(bundle, "part", 1, PYTHON)
    assert config.max_batch_size == 1
    assert shapes(config.input) == {"images": ("TYPE_UINT8", [*sides, 3])}


def test_a_smallest_batch_above_one_is_for_python_alone(tmp_path: Path) -> None:
    bundle = part(tmp_path, InputContract((4, 6), (2, 8)))
    with pytest.raises(BundleError, match=r"export with --batch 1\.\.N"):
        model_config(bundle, "part", 1, TritonOptions(engine="onnxruntime"))
    assert model_config(bundle, "part", 1, PYTHON).max_batch_size == 8
