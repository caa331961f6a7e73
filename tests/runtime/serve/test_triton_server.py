"""NVIDIA's own server runs what `stpm-serve triton` wrote, and `stpm-serve verify` judges it."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from triton_server import Running, ServerError, needs_triton, triton_server
from typer.testing import CliRunner

from stpm.runtime.bundle.archive import Bundle
from stpm.runtime.detector import Detector
from stpm.runtime.errors import BackendError

pytest.importorskip("onnx")
pytest.importorskip("tritonclient.grpc")
from stpm.runtime.serve.cli import main
from stpm.runtime.serve.clients import OUTPUTS, TritonClient
from stpm.runtime.serve.options import TritonBackend, TritonOptions
from stpm.runtime.serve.triton_repository import write_model

pytestmark = needs_triton
ENGINE = "onnxruntime"
TIMEOUT_S = 30.0


def python_model(bundle: Path, repository: Path, **options: int) -> None:
    settings = TritonOptions(TritonBackend.PYTHON, ENGINE, **options)
    write_model(Bundle(bundle), repository, settings)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, weave: Path) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("server")
    python_model(weave, folder / "models")
    with triton_server(folder / "models", folder / "log") as running:
        yield running


def clients(server: Running) -> list[TritonClient]:
    addresses = {"http": server.http, "grpc": server.grpc}
    return [TritonClient(name, address, TIMEOUT_S) for name, address in addresses.items()]


def verify(*words: object) -> tuple[int, str]:
    result = CliRunner().invoke(main, ["verify", *map(str, words)])
    return result.exit_code, result.output


def test_the_server_answers_as_the_detector_bit_for_bit(server: Running, weave: Path) -> None:
    detector = Detector(weave, ENGINE)
    random = np.random.default_rng(1)
    golden = detector.bundle.golden().images
    camera = random.integers(0, 256, (2, 90, 130, 3), np.uint8)
    for client, images in itertools.product(clients(server), (golden, camera)):
        results = detector.batch(list(images))
        found = client.ask("weave", "", images)
        np.testing.assert_array_equal(found["anomaly_map"], [r.anomaly_map for r in results])
        np.testing.assert_array_equal(found["pred_score"], [[r.score] for r in results])
        assert found["is_anomalous"].tolist() == [[r.is_anomalous] for r in results]
        np.testing.assert_allclose(found["threshold"], detector.calibration.image_threshold)
        np.testing.assert_allclose(found["pixel_threshold"], detector.calibration.pixel_threshold)


def test_only_what_is_asked_for_is_sent(server: Running, weave: Path) -> None:
    images = Bundle(weave).golden().images[:1]
    for client in clients(server):
        assert set(client.ask("weave", "1", images, ["is_anomalous"])) == {"is_anomalous"}


def test_verify_says_that_it_is_the_bundle(server: Running, weave: Path) -> None:
    words = (f"http://{server.http}", weave, "--grpc", server.grpc, "--engine", ENGINE)
    code, output = verify(*words)
    assert code == 0, output
    threshold = Bundle(weave).manifest.engines[ENGINE].calibration.image_threshold
    assert output.count(f"threshold {threshold:.6g} (") == 2
    assert f"grpc://{server.grpc} weave: 3 golden images" in output


def test_verify_says_what_is_not_the_bundles(server: Running, weave: Path, stricter: Path) -> None:
    code, output = verify(f"grpc://{server.grpc}", stricter)
    assert code == 1
    assert "serves the threshold" in output
    code, output = verify(f"http://{server.http}", weave, "--name", "bottle")
    assert code == 1
    assert "bottle" in output
    assert verify(f"http://{server.http}", weave, "--model-version", "7")[0] == 1
    assert verify(f"ftp://{server.http}", weave)[0] == 2
    assert "Traceback" not in output


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_verify_fails_where_no_server_is(weave: Path, protocol: str) -> None:
    code, output = verify(f"{protocol}://127.0.0.1:9", weave, "--timeout-s", "2")
    assert code == 1
    assert output.startswith(f"error: {protocol}://127.0.0.1:9")


def test_a_numpy_that_triton_misreads_is_refused(weave: Path, tmp_path: Path) -> None:
    """Its stub would see the first byte of an image at every pixel, and score that."""
    if np.lib.NumpyVersion(np.__version__) < "2.0.0":
        pytest.skip("NumPy here is the one that this Triton reads")
    python_model(weave, tmp_path / "models")
    with (
        pytest.raises(ServerError, match=r"misreads the arrays of NumPy 2"),
        triton_server(tmp_path / "models", tmp_path / "log", packages=()),
    ):
        pass


def test_a_damaged_bundle_is_not_served(weave: Path, tmp_path: Path) -> None:
    python_model(weave, tmp_path / "models")
    model = tmp_path / "models/weave/1/bundle.stpm/model.onnx"
    model.write_bytes(model.read_bytes()[:-1])
    with (
        pytest.raises(ServerError, match="differs from the manifest's hash"),
        triton_server(tmp_path / "models", tmp_path / "log"),
    ):
        pass


def test_the_graph_by_itself_is_refused_for_want_of_the_backend_alone(
    weave: Path, tmp_path: Path
) -> None:
    """The server here has no ONNX Runtime backend; all before it accepts the config."""
    write_model(Bundle(weave), tmp_path / "models", TritonOptions())
    with (
        pytest.raises(ServerError, match="unable to find backend library for backend 'onnxr"),
        triton_server(tmp_path / "models", tmp_path / "log", "--disable-auto-complete-config"),
    ):
        pass


def test_versions_are_exchanged_without_a_lost_request(
    weave: Path, stricter: Path, tmp_path: Path
) -> None:
    images = Bundle(weave).golden().images[:1]
    python_model(weave, tmp_path / "models")
    explicit = ("--model-control-mode", "explicit", "--load-model", "weave")
    with triton_server(tmp_path / "models", tmp_path / "log", *explicit) as server:
        verdicts: list[bool] = []
        stop = threading.Event()

        def ask_on() -> None:
            client = TritonClient("grpc", server.grpc, TIMEOUT_S)
            while not stop.is_set():
                answer = client.ask("weave", "", images, ["is_anomalous"])
                verdicts.append(bool(answer["is_anomalous"][0, 0]))

        with ThreadPoolExecutor(2) as pool:
            asking = [pool.submit(ask_on) for _ in range(2)]
            try:
                while not verdicts:
                    assert not any(task.done() for task in asking)
                python_model(stricter, tmp_path / "models")
                server.post("/v2/repository/models/weave/load")
                seen = len(verdicts)
                while len(verdicts) < seen + 4:
                    assert not any(task.done() for task in asking)
            finally:
                stop.set()
            for task in asking:
                task.result()
        assert not verdicts[0]
        assert verdicts[-1]
        address = f"grpc://{server.grpc}"
        assert verify(address, weave, "--model-version", "1")[0] == 0
        assert verify(address, stricter, "--model-version", "2")[0] == 0
        assert verify(address, stricter)[0] == 0


def test_overload_is_answered_at_once(weave: Path, tmp_path: Path) -> None:
    """One request runs and one waits; of many more at a time, the others are refused."""
    images = np.zeros((4, 64, 64, 3), np.uint8)
    python_model(weave, tmp_path / "models", max_queue=1)
    with triton_server(tmp_path / "models", tmp_path / "log") as server:

        def ask(_: int) -> str:
            client = TritonClient("grpc", server.grpc, TIMEOUT_S)
            try:
                client.ask("weave", "", images, OUTPUTS)
            except BackendError as error:
                return str(error)
            return "answered"

        with ThreadPoolExecutor(16) as pool:
            outcomes = list(pool.map(ask, range(32)))
    refused = [outcome for outcome in outcomes if outcome != "answered"]
    assert "answered" in outcomes
    assert refused
    assert all("Exceeds maximum queue size" in outcome for outcome in refused), refused[:3]
