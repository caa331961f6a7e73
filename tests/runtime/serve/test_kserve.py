"""`stpm-serve kserve`: the fields of KServe's v1beta1 InferenceService."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from stpm.runtime.serve.cli import main

yaml = pytest.importorskip("yaml")


def run(*words: str, code: int = 0) -> str:
    result = CliRunner().invoke(main, ["kserve", *words])
    assert result.exit_code == code, result.output
    return result.output


@pytest.mark.parametrize("gpus", [0, 2])
def test_the_service_names_protocol_runtime_and_store(gpus: int) -> None:
    text = run("s3://bucket/models", "--name", "line-3", "--gpus", str(gpus))
    model = {
        "modelFormat": {"name": "triton"},
        "protocolVersion": "v2",
        "runtime": "kserve-tritonserver",
        "storageUri": "s3://bucket/models",
    }
    if gpus:
        model["resources"] = {"limits": {"nvidia.com/gpu": "2"}}
    assert yaml.safe_load(text) == {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": "line-3"},
        "spec": {"predictor": {"model": model}},
    }


@pytest.mark.parametrize("name", ["Line", "line_3", "-line", "a" * 64, "line\n"])
def test_a_name_that_kubernetes_refuses_is_refused(name: str) -> None:
    assert "as Kubernetes does" in run("s3://bucket/models", "--name", name, code=1)


@pytest.mark.parametrize("uri", ["models", "s3://", "s3://a b", "/models"])
def test_what_is_no_store_is_refused(uri: str) -> None:
    assert "expected the address of the models" in run(uri, code=1)
