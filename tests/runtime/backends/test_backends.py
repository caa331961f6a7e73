"""Engines: same graph, same numbers, arrays that the caller owns, and refusals in one sentence."""

from __future__ import annotations

import importlib
import importlib.util
import weakref
from concurrent.futures import ThreadPoolExecutor
from importlib.machinery import ModuleSpec

import numpy as np
import pytest
from numpy.typing import NDArray

from stpm.runtime import backends
from stpm.runtime.backends import ENGINES, Engine, EngineSpec, installed_engines, open_engine
from stpm.runtime.errors import BackendError

Images = NDArray[np.uint8]
ON_PROCESSOR = [name for name, spec in ENGINES.items() if not spec.needs_gpu]
ON_ANY_GRAPH = [
    name
    for name, spec in ENGINES.items()
    if not spec.needs_gpu or (name in installed_engines() and name != "torch-cuda")
]
"""Those of the GPU where it is there; torch-cuda runs what it was compiled for alone."""
PARTS = ("teacher/", "student/", "fp32/")


def require(engine: str) -> None:
    if engine not in installed_engines():
        pytest.skip(f"{engine} is not installed, or there is no GPU for it")


@pytest.fixture(scope="module", params=ON_ANY_GRAPH)
def name(request: pytest.FixtureRequest) -> str:
    require(request.param)
    return str(request.param)


@pytest.fixture(scope="module")
def engine(name: str, model: bytes) -> Engine:
    return open_engine(name, model)


def noise(count: int, seed: int = 0) -> Images:
    return np.random.default_rng(seed).integers(0, 256, (count, 64, 64, 3), np.uint8)


@pytest.mark.parametrize("count", [1, 3, 4])
def test_outputs(engine: Engine, count: int) -> None:
    anomaly_maps, pred_scores = engine.run(noise(count))
    assert anomaly_maps.shape == (count, 64, 64)
    assert pred_scores.shape == (count,)
    assert anomaly_maps.dtype == pred_scores.dtype == np.float32
    assert len(np.unique(pred_scores)) == count
    np.testing.assert_array_equal(anomaly_maps.max(axis=(1, 2)), pred_scores)


def test_engines_agree(model: bytes) -> None:
    for name in ON_PROCESSOR:
        require(name)
    images = noise(2)
    (maps, scores), (other_maps, other_scores) = (
        open_engine(n, model).run(images) for n in ON_PROCESSOR
    )
    np.testing.assert_allclose(maps, other_maps, atol=1e-4 * scores.max())
    np.testing.assert_allclose(scores, other_scores, rtol=1e-4)


def test_images_do_not_influence_each_other(engine: Engine) -> None:
    images = noise(4)
    together = engine.run(images)
    alone = [engine.run(images[i : i + 1]) for i in range(4)]
    np.testing.assert_allclose(together[0], np.concatenate([a[0] for a in alone]), rtol=1e-4)
    np.testing.assert_allclose(together[1], np.concatenate([a[1] for a in alone]), rtol=1e-4)


def test_later_runs_leave_earlier_outputs_alone(engine: Engine) -> None:
    images = noise(2)
    kept = engine.run(images)
    copies = [array.copy() for array in kept]
    for seed in range(1, 5):
        later = engine.run(noise(2, seed))
        assert not np.array_equal(later[0], copies[0])
    for array, copy in zip(kept, copies, strict=True):
        np.testing.assert_array_equal(array, copy)
        array += 1
    np.testing.assert_array_equal(engine.run(images)[0], copies[0])
    np.testing.assert_array_equal(images, noise(2))


def test_outputs_of_one_run_outlive_the_engine(name: str, model: bytes) -> None:
    engine = open_engine(name, model)
    anomaly_maps, _ = engine.run(noise(1))
    copy = anomaly_maps.copy()
    gone = weakref.ref(engine)
    del engine
    assert gone() is None, "its memory would wait for a collection"
    np.testing.assert_array_equal(anomaly_maps, copy)


def test_threads_share_an_engine(engine: Engine) -> None:
    batches = [noise(1 + seed % 4, seed) for seed in range(24)]
    serial = [engine.run(batch) for batch in batches]
    with ThreadPoolExecutor(8) as pool:
        parallel = list(pool.map(engine.run, batches))
    for (maps, scores), (expected_maps, expected_scores) in zip(parallel, serial, strict=True):
        np.testing.assert_array_equal(maps, expected_maps)
        np.testing.assert_array_equal(scores, expected_scores)


def test_engine_recovers_from_a_batch_that_does_not_fit(engine: Engine) -> None:
    expected = engine.run(noise(1))
    with pytest.raises(Exception, match=r"(?i)dimension|shape"):
        engine.run(np.zeros((1, 60, 64, 3), np.uint8))
    np.testing.assert_array_equal(engine.run(noise(1))[0], expected[0])


def test_number_of_threads_changes_no_result(name: str, engine: Engine, model: bytes) -> None:
    single = open_engine(name, model, threads=1).run(noise(1))
    np.testing.assert_allclose(single[0], engine.run(noise(1))[0], rtol=1e-4)


@pytest.mark.parametrize(("threads", "streams"), [(0, 1), (1, 6), (4, 1), (9, 1)])
def test_openvino_runs_as_many_at_once_as_there_are_processors_for(
    threads: int, streams: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    openvino_cpu = pytest.importorskip("stpm.runtime.backends.openvino_cpu")
    monkeypatch.setattr(openvino_cpu, "_usable_cores", lambda: 6)
    chosen = {str(name): value for name, value in openvino_cpu._properties(threads).items()}
    assert chosen.get("NUM_STREAMS", 1) == streams
    assert chosen.get("INFERENCE_NUM_THREADS", 0) == threads * streams


def test_built_with_names_library_and_device(name: str, engine: Engine) -> None:
    library = importlib.import_module(ENGINES[name].library)
    built_with = engine.built_with()
    assert built_with.keys() == {ENGINES[name].library, "device"}
    assert built_with[ENGINES[name].library] in library.__version__
    assert built_with["device"]


def test_openvino_computes_an_fp32_graph_in_fp32(model: bytes) -> None:
    require("openvino")
    layers = open_engine("openvino", model).layer_precisions()
    assert not {"f16", "bf16", "u4", "i8", "i4"} & set(layers.values())
    nodes = {
        name: precision
        for names, precision in layers.items()
        for name in names.split(",")
        if "/node_" in name
    }
    assert {name[: name.index("/") + 1] for name in nodes} == set(PARTS)
    convolutions = [name for name in nodes if "conv" in name.lower()]
    assert len(convolutions) >= 20
    assert {nodes[name] for name in convolutions} == {"f32"}


def test_onnxruntime_reports_no_precisions(model: bytes) -> None:
    require("onnxruntime")
    assert open_engine("onnxruntime", model).layer_precisions() == {}


def test_unknown_engine() -> None:
    with pytest.raises(BackendError, match="got engine 'abacus', expected one of tensorrt, "):
        open_engine("abacus", b"")


@pytest.fixture
def uninstalled(name: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Hide one engine's library."""
    find = importlib.util.find_spec

    def hidden(library: str, package: str | None = None) -> ModuleSpec | None:
        return None if library == ENGINES[name].library else find(library, package)

    monkeypatch.setattr(importlib.util, "find_spec", hidden)
    return name


def test_engine_that_is_not_installed(uninstalled: str, model: bytes) -> None:
    assert uninstalled not in installed_engines()
    with pytest.raises(BackendError, match=f"{uninstalled} is not installed; run pip install"):
        open_engine(uninstalled, model)


def test_installed_engines_keep_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda *_: ModuleSpec("any", None))
    monkeypatch.setattr(backends, "version", lambda _: "1.0")
    monkeypatch.setattr(backends, "gpu_count", lambda: 1)
    assert installed_engines() == list(ENGINES)
    monkeypatch.setattr(backends, "gpu_count", lambda: 0)
    assert installed_engines() == ON_PROCESSOR
    monkeypatch.setattr(importlib.util, "find_spec", lambda *_: None)
    assert installed_engines() == []


def test_engine_whose_library_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ENGINES, "broken", EngineSpec("json", "absent", "pip install broken"))
    with pytest.raises(BackendError, match=r"broken is installed but cannot be loaded \(No module"):
        open_engine("broken", b"")


@pytest.mark.parametrize(
    "content", [b"", b"no graph", bytes(1000), b"<xml/>"], ids=["empty", "text", "zeros", "xml"]
)
def test_content_that_is_no_graph(name: str, content: bytes) -> None:
    with pytest.raises(BackendError, match=r"cannot run this graph on the [CG]PU") as caught:
        open_engine(name, content)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("share", [0.001, 0.5, 0.999])
def test_truncated_graph(name: str, model: bytes, share: float) -> None:
    with pytest.raises(BackendError, match=r"cannot run this graph on the [CG]PU"):
        open_engine(name, model[: int(share * len(model))])
