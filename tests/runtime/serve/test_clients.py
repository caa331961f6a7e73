"""The clients of docs/clients, against the real server: the verdict that the runtime gives."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from triton_server import Running, needs_triton, triton_server

from stpm.runtime.bundle.archive import Bundle
from stpm.runtime.detector import Detector

pytest.importorskip("onnx")
pytest.importorskip("tritonclient.grpc")
from stpm.runtime.serve.options import TritonBackend, TritonOptions
from stpm.runtime.serve.triton_repository import write_model

CLIENTS = Path(__file__).parents[3] / "docs/clients"
ENGINE = "onnxruntime"
pytestmark = needs_triton


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory, weave: Path, stricter: Path
) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("server")
    options = TritonOptions(TritonBackend.PYTHON, ENGINE)
    write_model(Bundle(weave), folder / "models", options)
    write_model(Bundle(stricter), folder / "models", options, "stricter")
    with triton_server(folder / "models", folder / "log") as running:
        yield running


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pixels = np.random.default_rng(5).integers(0, 256, (50, 70, 3), np.uint8)
    path = tmp_path_factory.mktemp("picture") / "part.ppm"
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture(scope="module")
def ask_cpp(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("c++")
    found = (
        compiler
        and not subprocess.run(
            [compiler, "-E", "-x", "c++", "-"],
            input=b"#include <curl/curl.h>\n#include <nlohmann/json.hpp>\n",
            capture_output=True,
            check=False,
        ).returncode
    )
    if not compiler or not found:
        pytest.skip("no C++ compiler with libcurl (libcurl4-openssl-dev) and nlohmann-json")
    program = tmp_path_factory.mktemp("client") / "ask"
    words = [compiler, "-std=c++17", "-Wall", "-Wextra", "-Werror", "-Wno-psabi"]
    subprocess.run([*words, CLIENTS / "ask.cpp", "-o", program, "-lcurl"], check=True)
    return program


@pytest.mark.parametrize(("model", "verdict"), [("weave", None), ("stricter", "ANOMALOUS")])
@pytest.mark.parametrize("language", ["python", "c++"])
def test_a_client_prints_the_verdict(
    request: pytest.FixtureRequest,
    server: Running,
    weave: Path,
    picture: Path,
    language: str,
    model: str,
    verdict: str | None,
) -> None:
    words: list[str | Path]
    if language == "python":
        words = [sys.executable, CLIENTS / "ask.py", server.grpc]
    else:
        words = [request.getfixturevalue("ask_cpp"), f"http://{server.http}"]
    done = subprocess.run(
        [*words, model, picture], check=True, capture_output=True, text=True, timeout=60
    )
    said, score, threshold, path = done.stdout.split()
    result = Detector(weave, ENGINE)(picture)
    assert said == verdict or (verdict is None and (said == "ANOMALOUS") == result.is_anomalous)
    assert float(score) == pytest.approx(result.score, rel=1e-5)
    assert float(threshold) == pytest.approx(-1 if verdict else result.threshold, rel=1e-5)
    assert path == str(picture)


def test_the_cpp_client_says_what_the_server_refuses(
    server: Running, picture: Path, ask_cpp: Path
) -> None:
    done = subprocess.run(
        [ask_cpp, f"http://{server.http}", "bottle", picture],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "unknown model" in done.stderr
