"""What serving costs: counts of requests and refusals, and a run against the real server."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from triton_server import needs_triton, triton_server
from typer.testing import CliRunner

from stpm.benchmarks.records.result_file import read_result
from stpm.runtime.bundle.archive import Bundle
from stpm.runtime.errors import BackendError, DataError

pytest.importorskip("tritonclient.grpc")
from stpm.benchmarks.measure.serving import formed_batch, load, main
from stpm.runtime.serve.options import TritonBackend, TritonOptions
from stpm.runtime.serve.triton_repository import write_model

IMAGE = np.zeros((1, 2, 2, 3), np.uint8)


def test_refusals_are_counted_and_none_of_the_times() -> None:
    asked = itertools.count()
    refusals = itertools.count()

    def ask(_: NDArray[np.uint8]) -> None:
        if next(asked) % 2:
            next(refusals)
            raise BackendError("full")

    found = load(lambda: ask, IMAGE, clients=1, seconds=0.05)
    total, refused = next(asked), next(refusals)
    assert found["refused"] == refused
    assert found["requests"] == len(found["times_ms"]) == total - refused - 1
    assert found["seconds"] >= 0.05
    assert found["requests_per_second"] == found["requests"] / found["seconds"]


def test_a_server_that_answers_nobody_is_an_error() -> None:
    def ask(_: NDArray[np.uint8]) -> None:
        raise BackendError("full")

    with pytest.raises(DataError, match="none of 3 clients"):
        load(lambda: ask, IMAGE, clients=3, seconds=0.01)


def test_batches_are_images_a_run_between_two_counts() -> None:
    assert formed_batch([(10, 4), (34, 10)]) == 4.0
    assert formed_batch([(10, 4), (10, 4)]) is None


@needs_triton
def test_a_server_and_a_detector_are_loaded_in_turn(bundle_path: Path, tmp_path: Path) -> None:
    options = TritonOptions(TritonBackend.PYTHON, "onnxruntime")
    write_model(Bundle(bundle_path), tmp_path / "models", options)
    with triton_server(tmp_path / "models", tmp_path / "log") as server:
        words = ["--grpc", server.grpc, "--http", server.http, "--engine", "onnxruntime"]
        words += ["--clients", "1,3", "--seconds", "0.3", "--out", str(tmp_path / "found.json")]
        done = CliRunner().invoke(main, [str(bundle_path), *words])
    assert done.exit_code == 0, done.output
    record = read_result(tmp_path / "found.json")
    assert record["kind"] == "serving"
    assert [(x["contender"], x["clients"]) for x in record["loads"]] == [
        (contender, count)
        for count in (1, 3)
        for contender in ("detector", "grpc weave", "http weave")
    ]
    assert all(1 <= x["batch"] <= 3 for x in record["loads"] if x["batch"] is not None)
    assert [x["batch"] is None for x in record["loads"]] == [True, False, False] * 2
