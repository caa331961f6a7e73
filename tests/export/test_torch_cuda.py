"""Packages for torch's own runtime, compiled for the processor where there is no GPU."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from stpm.export import torch_cuda
from stpm.export.graph import DeploymentGraph
from stpm.export.torch_cuda import package_from_graph
from stpm.runtime import BackendError, ExportError
from stpm.runtime.backends import BuiltEngine, EngineSource
from stpm.runtime.backends import torch_cuda as backend
from stpm.runtime.backends.torch_cuda import load
from stpm.train.backbones import pyramid
from stpm.train.stpm import ModelConfig, Stpm

RUN = """
import sys
import numpy, torch
from stpm.runtime.backends.torch_cuda import Package
package = Package(open(sys.argv[1], "rb").read())
batches = numpy.load(sys.argv[2])
outputs = {}
for name in batches:
    maps, scores = package.score(torch.from_numpy(batches[name]))
    outputs[name + "_maps"], outputs[name + "_scores"] = maps.numpy(), scores.numpy()
numpy.savez(sys.argv[3], **outputs)
assert not [name for name in sys.modules if name.startswith(("stpm.train", "stpm.export"))]
"""


@pytest.fixture(scope="module")
def graph() -> DeploymentGraph:
    """One level of a small network: compiling is slow."""
    config = ModelConfig(levels=("layer1",), input_size=(32, 32))
    with torch.random.fork_rng():
        torch.manual_seed(5)
        return DeploymentGraph(Stpm(config, pyramid(config.backbone, config.levels)))


def test_a_package_scores_like_the_graph_without_the_training_code(
    graph: DeploymentGraph, tmp_path: Path
) -> None:
    content = package_from_graph(graph, (1, 3), "cpu")
    (tmp_path / "package.pt2").write_bytes(content)
    rng = np.random.default_rng(0)
    batches = {f"of_{n}": rng.integers(0, 256, (n, 32, 32, 3), np.uint8) for n in (1, 3)}
    np.savez(tmp_path / "batches.npz", **batches)
    files = [tmp_path / name for name in ("package.pt2", "batches.npz", "outputs.npz")]
    subprocess.run([sys.executable, "-c", RUN, *map(str, files)], check=True)
    outputs = np.load(files[2])
    for name, images in batches.items():
        maps, scores = graph(torch.from_numpy(images))
        assert float(scores.min()) > 0
        np.testing.assert_allclose(outputs[f"{name}_maps"], maps, atol=1e-5 * float(maps.max()))
        np.testing.assert_allclose(outputs[f"{name}_scores"], scores, rtol=1e-5)


def test_fp32_convolutions_are_not_rounded_to_tf32(
    graph: DeploymentGraph, monkeypatch: pytest.MonkeyPatch
) -> None:
    allowed = []

    def part(*_: object) -> tuple[torch.Tensor, torch.Tensor]:
        allowed.append(torch.backends.cudnn.allow_tf32)
        return torch.zeros(1), torch.zeros(1)

    def compiled(*_: object, **__: object) -> list[str]:
        part()
        return []

    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    monkeypatch.setattr(backend, "load_package", lambda *_, **__: part)
    backend.Package(b"").score(torch.zeros(1))
    monkeypatch.setattr(torch_cuda, "aot_compile", compiled)
    monkeypatch.setattr(torch_cuda, "package_aoti", lambda path, _: Path(path).write_bytes(b""))
    package_from_graph(graph, (1, 1), "cpu")
    assert allowed == [False] * 8
    assert torch.backends.cudnn.allow_tf32


def test_what_cannot_be_compiled(graph: DeploymentGraph, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("no compiler\nfound")

    monkeypatch.setattr(torch_cuda, "aot_compile", broken)
    with pytest.raises(ExportError, match=r"cannot compile this network for cpu \(no compiler\)"):
        package_from_graph(graph, (1, 1), "cpu")


@pytest.mark.parametrize("built", [None, BuiltEngine(None)])
def test_a_bundle_without_a_package(built: BuiltEngine | None) -> None:
    with pytest.raises(BackendError, match="export it again with --engine torch-cuda"):
        load(EngineSource("torch-cuda", b"", built=built))


def test_a_package_of_another_torch_or_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H200")
    here = {"torch": torch.__version__, "device": "NVIDIA H200, sm90"}
    for name, other in (("torch", "2.11.0"), ("device", "NVIDIA L4, sm89")):
        built = BuiltEngine(b"package", here | {name: other})
        with pytest.raises(BackendError, match=f"compiled for {name} {other}, here is"):
            load(EngineSource("torch-cuda", b"", built=built))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(BackendError, match="sees no GPU"):
        load(EngineSource("torch-cuda", b"", built=BuiltEngine(b"package", here)))
