"""`stpm-serve triton --backend tensorrt`: a plan, its verdict, and the ensemble in a real server.

No TensorRT is here: the plan is never loaded. In its place Triton's Python backend runs the graph.
"""

from __future__ import annotations

import hashlib
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from triton_server import ServerError, needs_triton, triton_server
from typer.testing import CliRunner

from stpm.runtime.bundle.archive import GOLDEN, MODEL, Bundle, write_bundle
from stpm.runtime.detector import Detector
from stpm.runtime.errors import BackendError

pytest.importorskip("onnx")
pytest.importorskip("tritonclient.grpc")
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from stpm.runtime.serve.cli import main
from stpm.runtime.serve.clients import TritonClient
from stpm.runtime.serve.options import TritonBackend, TritonOptions
from stpm.runtime.serve.triton_ensemble import ensemble_models
from stpm.runtime.serve.triton_repository import LAUNCHER, write_model
from stpm.runtime.serve.verdict_graph import verdict_alone

PARTS = ("weave-plan", "weave-verdict", "weave")
OPTIONS = TritonOptions(TritonBackend.TENSORRT, "tensorrt", instances=2, max_queue=9)
TIMEOUT_S = 30.0
STAND_IN = (
    LAUNCHER.partition("from stpm")[0]
    + """
import numpy as np
import onnxruntime
import triton_python_backend_utils as utils


class TritonPythonModel:
    def initialize(self, args):
        self.session = onnxruntime.InferenceSession("FILE", providers=["CPUExecutionProvider"])

    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        given = {}
        for value in self.session.get_inputs():
            array = utils.get_input_tensor_by_name(request, value.name).as_numpy()
            given[value.name] = array
        names = [value.name for value in self.session.get_outputs()]
        arrays = self.session.run(names, given)
        return utils.InferenceResponse(
            [utils.Tensor(name, array) for name, array in zip(names, arrays)]
        )
"""
)
"""A model of Triton's Python backend that runs an ONNX file."""


def run(*words: object, code: int = 0) -> str:
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exit_code == code, result.output
    return result.output


def serve_plan(bundle: Path, repository: Path, max_queue: int = 64) -> Path:
    options = TritonOptions(TritonBackend.TENSORRT, max_queue=max_queue)
    return write_model(Bundle(bundle), repository, options)


def config_of(model: Path) -> Any:
    text = (model / "config.pbtxt").read_text(encoding="utf-8")
    return text_format.Parse(text, pb.ModelConfig())


def shapes(tensors: Any) -> dict[str, tuple[str, list[int]]]:
    return {t.name: (pb.DataType.Name(t.data_type), list(t.dims)) for t in tensors}


def test_the_plan_its_verdict_and_the_ensemble_fit(with_plan: Path, tmp_path: Path) -> None:
    flags = ("--backend", "tensorrt", "--instances", 2, "--max-queue", 9)
    assert str(tmp_path / "models/weave/1") in run("triton", with_plan, tmp_path / "models", *flags)
    plan, verdict, ensemble = (config_of(tmp_path / "models" / name) for name in PARTS)
    assert (tmp_path / "models/weave-plan/1/model.plan").read_bytes() == b"a plan"
    assert (plan.name, plan.platform, plan.max_batch_size) == ("weave-plan", "tensorrt_plan", 4)
    assert shapes(plan.input) == shapes(ensemble.input) == {"images": ("TYPE_UINT8", [64, 64, 3])}
    assert shapes(plan.output) == {
        "anomaly_map": ("TYPE_FP32", [64, 64]),
        "pred_score": ("TYPE_FP32", [1]),
    }
    # The engine gives (N,), what is asked of the model is (N,1).
    score = next(tensor for tensor in plan.output if tensor.name == "pred_score")
    assert score.HasField("reshape")
    assert list(score.reshape.shape) == []
    (group,) = plan.instance_group
    assert (group.count, group.kind, list(group.gpus)) == (2, pb.ModelInstanceGroup.KIND_GPU, [0])
    assert plan.dynamic_batching.default_queue_policy.max_queue_size == 9
    golden = Bundle(with_plan).golden().images
    for sample, image in zip(plan.model_warmup, golden, strict=True):
        file = tmp_path / "models/weave-plan/warmup" / sample.inputs["images"].input_data_file
        assert file.read_bytes() == image.tobytes()
    assert shapes(verdict.input) == {"pred_score": ("TYPE_FP32", [1])}
    assert shapes(ensemble.output) == shapes(plan.output) | shapes(verdict.output)
    assert set(shapes(verdict.output)) == {
        "threshold",
        "pixel_threshold",
        "is_anomalous",
        "is_warned",
    }
    steps = ensemble.ensemble_scheduling.step
    assert [(step.model_name, step.model_version) for step in steps] == [
        ("weave-plan", 1),
        ("weave-verdict", 1),
    ]
    values = {key: value.string_value for key, value in ensemble.parameters.items()}
    calibration = Bundle(with_plan).manifest.engines["tensorrt"].calibration
    assert float(values["1.image_threshold"]) == calibration.image_threshold
    assert values["1.engine_sha256"] == hashlib.sha256(b"a plan").hexdigest()
    assert (values["1.tensorrt"], values["1.device"]) == ("10.8.0", "NVIDIA L4")


def test_a_further_version_ties_the_ensemble_to_its_own_parts(
    with_plan: Path, stricter_with_plan: Path, tmp_path: Path
) -> None:
    """Else the scores of one version would be held against the thresholds of another."""
    serve_plan(with_plan, tmp_path / "models")
    assert serve_plan(stricter_with_plan, tmp_path / "models").name == "2"
    *parts, ensemble = (config_of(tmp_path / "models" / name) for name in PARTS)
    assert [step.model_version for step in ensemble.ensemble_scheduling.step] == [2, 2]
    assert ensemble.version_policy.latest.num_versions == 1
    assert [part.version_policy.latest.num_versions for part in parts] == [2, 2]
    assert all((tmp_path / "models" / name / "1").is_dir() for name in PARTS)


def test_a_plan_of_fixed_batch_names_it_in_its_shapes(with_plan: Path, tmp_path: Path) -> None:
    source = Bundle(with_plan)
    fixed = replace(source.manifest, input=replace(source.manifest.input, batch=(2, 2)))
    write_bundle(tmp_path / "two.stpm", fixed, {n: source.read(n) for n in source.manifest.files})
    models = ensemble_models(Bundle(tmp_path / "two.stpm"), "two", 1, OPTIONS)
    plan, verdict, ensemble = (model.config for model in models)
    assert plan.max_batch_size == verdict.max_batch_size == ensemble.max_batch_size == 0
    assert shapes(plan.output)["pred_score"] == ("TYPE_FP32", [2, 1])
    assert list(plan.output[1].reshape.shape) == [2]
    assert shapes(verdict.input) == {"pred_score": ("TYPE_FP32", [2, 1])}


def test_a_bundle_without_a_plan_is_refused_in_one_sentence(weave: Path, tmp_path: Path) -> None:
    said = run("triton", weave, tmp_path / "models", "--backend", "tensorrt", code=1)
    assert "brings no TensorRT plan" in said
    assert not (tmp_path / "models").exists()


def test_a_plan_of_tensorrt_rtx_is_none_that_triton_loads(weave: Path, tmp_path: Path) -> None:
    source = Bundle(weave)
    record = replace(source.manifest.engines["onnxruntime"], file="tensorrt-rtx.engine")
    files = {name: source.read(name) for name in (MODEL, GOLDEN)}
    manifest = replace(source.manifest, engines={"tensorrt-rtx": record})
    write_bundle(tmp_path / "rtx.stpm", manifest, files | {"tensorrt-rtx.engine": b"rtx"})
    words = ("triton", tmp_path / "rtx.stpm", tmp_path / "models", "--backend", "tensorrt")
    assert "brings no TensorRT plan, only tensorrt-rtx" in run(*words, code=1)
    assert "expected one of tensorrt" in run(*words, "--engine", "tensorrt-rtx", code=1)


@pytest.mark.parametrize("warned", [False, True])
def test_the_verdict_by_itself_decides_as_the_detector(weave: Path, warned: bool) -> None:
    detector = Detector(weave, "onnxruntime")
    maps, scores = detector.infer(detector.bundle.golden().images)
    threshold, lowest = float(np.median(scores)), float(scores.min())
    calibration = replace(
        detector.calibration,
        image_threshold=threshold,
        warn_threshold=lowest if warned else None,
        warn_rate=0.5 if warned else None,
    )
    session = ort.InferenceSession(verdict_alone(calibration), providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs()]
    found = dict(zip(names, session.run(names, {"pred_score": scores[:, None]}), strict=True))
    detector.calibration = calibration
    results = detector.decide([(64, 64)] * len(scores), (maps, scores))
    assert found["is_anomalous"].ravel().tolist() == [r.is_anomalous for r in results]
    assert found["is_warned"].ravel().tolist() == [r.verdict == "warn" for r in results]
    np.testing.assert_allclose(found["threshold"].ravel(), threshold, rtol=1e-6)


@needs_triton
def test_the_plan_is_refused_for_want_of_the_backend_alone(with_plan: Path, tmp_path: Path) -> None:
    serve_plan(with_plan, tmp_path / "models")
    on_host(tmp_path / "models")
    with (
        pytest.raises(ServerError, match="unable to find backend library for backend 'tensorrt'"),
        triton_server(tmp_path / "models", tmp_path / "log", "--disable-auto-complete-config"),
    ):
        pass


def on_host(repository: Path) -> None:
    """Take the plan off the GPU, which is not here."""
    file = repository / "weave-plan/config.pbtxt"
    config = config_of(file.parent)
    del config.instance_group[:]
    config.instance_group.add(kind=pb.ModelInstanceGroup.KIND_CPU, count=1)
    file.write_text(text_format.MessageToString(config))


def stand_in(written: Path, served: Path, bundle: Path, version: int) -> None:
    """Copy a repository and run, in Triton's Python backend, the graph in the plan's place.

    The verdict's ONNX file is run there, too; the ensemble is as it was written.
    """
    shutil.copytree(written, served, dirs_exist_ok=True)
    on_host(served)
    graphs = {
        "weave-plan": bundle / MODEL,
        "weave-verdict": served / f"weave-verdict/{version}/model.onnx",
    }
    for name, graph in graphs.items():
        model = served / name
        config = config_of(model)
        config.backend, config.platform = "python", ""
        (model / "config.pbtxt").write_text(text_format.MessageToString(config))
        (model / str(version) / "model.py").write_text(STAND_IN.replace("FILE", str(graph)))


@needs_triton
def test_the_ensemble_gives_the_bundles_verdict_and_is_exchanged_whole(
    with_plan: Path, stricter_with_plan: Path, tmp_path: Path
) -> None:
    """Triton itself runs the ensemble as written; no request is lost when its version changes."""
    written, repository = tmp_path / "written", tmp_path / "models"
    serve_plan(with_plan, written)
    stand_in(written, repository, with_plan, 1)
    images = Bundle(with_plan).golden().images[:1]
    explicit = ("--model-control-mode", "explicit", "--load-model", "weave")
    with triton_server(repository, tmp_path / "log", *explicit) as server:
        address = f"grpc://{server.grpc}"
        run("verify", address, with_plan, "--engine", "tensorrt")
        found: list[tuple[bool, bool]] = []
        stop = threading.Event()

        def ask_on() -> None:
            client = TritonClient("grpc", server.grpc, TIMEOUT_S)
            while not stop.is_set():
                answer = client.ask("weave", "", images)
                found.append((bool(answer["is_anomalous"].item()), answer["threshold"].item() < 0))

        with ThreadPoolExecutor(1) as pool:
            asking = pool.submit(ask_on)
            try:
                while not found:
                    assert not asking.done()
                serve_plan(stricter_with_plan, written)
                stand_in(written, repository, stricter_with_plan, 2)
                server.post("/v2/repository/models/weave/load")
                seen = len(found)
                while len(found) < seen + 4:
                    assert not asking.done()
            finally:
                stop.set()
            asking.result()
        assert all(verdict == stricter for verdict, stricter in found)
        assert (found[0], found[-1]) == ((False, False), (True, True))
        run("verify", address, stricter_with_plan, "--engine", "tensorrt")
        assert "serves the threshold" in run("verify", address, with_plan, code=1)


@needs_triton
def test_overload_of_the_plan_is_answered_at_once(with_plan: Path, tmp_path: Path) -> None:
    """The ensemble has no queue of its own: what the plan's refuses, the client is told."""
    serve_plan(with_plan, tmp_path / "written", max_queue=1)
    stand_in(tmp_path / "written", tmp_path / "models", with_plan, 1)
    images = np.zeros((4, 64, 64, 3), np.uint8)
    with triton_server(tmp_path / "models", tmp_path / "log") as server:

        def ask(_: int) -> str:
            client = TritonClient("grpc", server.grpc, TIMEOUT_S)
            try:
                client.ask("weave", "", images)
            except BackendError as error:
                return str(error)
            return "answered"

        with ThreadPoolExecutor(16) as pool:
            outcomes = list(pool.map(ask, range(32)))
    refused = [outcome for outcome in outcomes if outcome != "answered"]
    assert "answered" in outcomes
    assert refused
    assert all("Exceeds maximum queue size" in outcome for outcome in refused), refused[:3]
