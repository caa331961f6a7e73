"""The detector: which engine, what it refuses to trust, and equal results however it is called."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from stpm.runtime import detector as detector_module
from stpm.runtime.backends import ENGINES, installed_engines
from stpm.runtime.batches import fit_input
from stpm.runtime.bundle.archive import (
    GOLDEN,
    MANIFEST,
    MODEL,
    Bundle,
    Golden,
    InputContract,
    npz_bytes,
    write_bundle,
)
from stpm.runtime.detector import Detector
from stpm.runtime.errors import BackendError, BundleError, DataError, ParityError
from stpm.runtime.images.preprocess import resize
from stpm.runtime.output.result import Result

Images = NDArray[np.uint8]
ON_ANY_GRAPH = [
    name
    for name, spec in ENGINES.items()
    if not spec.needs_gpu or (name in installed_engines() and name != "torch-cuda")
]


def require(engine: str) -> None:
    if engine not in installed_engines():
        pytest.skip(f"{engine} is not installed, or there is no GPU for it")


@pytest.fixture(scope="module", params=ON_ANY_GRAPH)
def detector(request: pytest.FixtureRequest, bundle_path: Path) -> Detector:
    require(request.param)
    return Detector(bundle_path, request.param)


@pytest.fixture
def copied(tmp_path: Path, bundle_path: Path) -> Path:
    return Path(shutil.copytree(bundle_path, tmp_path / "weave.stpm"))


def rewrite(path: Path, *, golden: Golden | None = None, model: bytes = b"", **fields: Any) -> None:
    """Change a bundle and keep its hashes right."""
    bundle = Bundle(path)
    files = {
        MODEL: model or bundle.read(MODEL),
        GOLDEN: npz_bytes(golden or bundle.golden()),
    }
    write_bundle(path, replace(bundle.manifest, **fields), files)


def noise(*shape: int, seed: int = 0) -> Images:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def assert_same(result: Result, expected: Result, *, relative: float = 0.0) -> None:
    np.testing.assert_allclose(result.score, expected.score, rtol=relative)
    np.testing.assert_allclose(result.anomaly_map, expected.anomaly_map, rtol=relative)
    assert result.image_size == expected.image_size
    assert (result.threshold, result.pixel_threshold) == (
        expected.threshold,
        expected.pixel_threshold,
    )


def test_result_of_a_golden_image(detector: Detector) -> None:
    golden = detector.bundle.golden()
    for image, anomaly_map, score in zip(*vars(golden).values(), strict=True):
        result = detector(image)
        np.testing.assert_allclose(result.anomaly_map, anomaly_map, atol=1e-4 * score)
        assert result.score == pytest.approx(float(score), rel=1e-4)
        assert result.score == result.anomaly_map.max()
        assert result.image_size == (64, 64)


@pytest.mark.parametrize("name", ON_ANY_GRAPH)
def test_thresholds_are_those_of_the_engine(copied: Path, name: str) -> None:
    require(name)
    records = Bundle(copied).manifest.engines
    marked = {
        name: replace(
            record,
            calibration=replace(record.calibration, image_threshold=i + 0.5, pixel_threshold=i),
        )
        for i, (name, record) in enumerate(records.items())
    }
    rewrite(copied, engines=marked)
    detector = Detector(copied, name)
    result = detector(noise(10, 12))
    assert detector.calibration == marked[name].calibration
    assert result.threshold == marked[name].calibration.image_threshold
    assert result.pixel_threshold == marked[name].calibration.pixel_threshold


def test_images_are_resized_like_in_training(detector: Detector) -> None:
    image = noise(90, 130, 3)
    result, expected = detector(image), detector(resize(image, (64, 64)))
    np.testing.assert_array_equal(result.anomaly_map, expected.anomaly_map)
    assert result.image_size == (90, 130)


def test_sources_of_one_image_agree(detector: Detector, data_root: Path) -> None:
    path = data_root / "weave/test/hole/000.png"
    expected = detector(path)
    with path.open("rb") as file, Image.open(path) as image:
        grey = np.asarray(image)
        colour = np.stack([grey] * 3, axis=-1)
        for source in (str(path), file, image, grey, grey[..., None], colour):
            assert_same(detector(source), expected)


def test_batch_of_mixed_sizes_equals_single_calls(detector: Detector) -> None:
    shapes = [(64, 64), (30, 50, 3), (200, 100, 1), (64, 64, 4), (1, 1), (65, 63, 3)]
    images = [noise(*shape, seed=i) for i, shape in enumerate(shapes)]
    assert len(images) > detector.bundle.manifest.input.batch[1]
    results = detector.batch(image for image in images)
    assert [result.image_size for result in results] == [shape[:2] for shape in shapes]
    for image, result in zip(images, results, strict=True):
        assert_same(result, detector(image), relative=1e-4)


@pytest.mark.parametrize("count", [0, 1, 4, 5, 9])
def test_any_number_of_images(detector: Detector, count: int) -> None:
    results = detector.batch([noise(64, 64, seed=i) for i in range(count)])
    assert len({result.score for result in results}) == count


@pytest.mark.parametrize("value", [0, 128, 255])
def test_constant_frames_have_finite_scores(detector: Detector, value: int) -> None:
    result = detector(np.full((48, 80), value, np.uint8))
    assert np.isfinite(result.score)
    assert np.isfinite(result.anomaly_map).all()
    assert result.score > 0


def test_threads_share_a_detector(detector: Detector) -> None:
    images = [noise(40 + i, 60, seed=i) for i in range(16)]
    expected = [detector(image) for image in images]
    with ThreadPoolExecutor(8) as pool:
        for result, wanted in zip(pool.map(detector, images), expected, strict=True):
            assert_same(result, wanted)


def test_later_calls_leave_earlier_results_alone(detector: Detector) -> None:
    first = detector(noise(64, 64))
    before = first.anomaly_map.copy()
    detector.batch([noise(64, 64, seed=i) for i in range(1, 6)])
    np.testing.assert_array_equal(first.anomaly_map, before)


def test_bad_image_of_a_batch_is_named(detector: Detector, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent\.png: there is no such file"):
        detector.batch([noise(64, 64), tmp_path / "absent.png"])


def test_fastest_installed_and_verified_engine(
    bundle_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Detector(bundle_path).engine_name == detector_module.installed_engines()[0]
    monkeypatch.setattr(detector_module, "installed_engines", lambda: ["abacus", "onnxruntime"])
    assert Detector(bundle_path).engine_name == "onnxruntime"


def test_unverified_engines_are_passed_over(copied: Path) -> None:
    records = Bundle(copied).manifest.engines
    rewrite(copied, engines={"onnxruntime": records["onnxruntime"]})
    assert Detector(copied).engine_name == "onnxruntime"


def test_no_verified_engine_is_installed(
    bundle_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(detector_module, "installed_engines", lambda: ["abacus"])
    with pytest.raises(
        BackendError, match=r"none of which is installed; run pip install .*onnxruntime"
    ):
        Detector(bundle_path)


def test_a_bundle_for_gpus_says_that_there_is_none(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(detector_module, "gpu_count", lambda: 0)
    monkeypatch.setattr(detector_module, "installed_engines", lambda: ["openvino", "onnxruntime"])
    record = Bundle(copied).manifest.engines["onnxruntime"]
    rewrite(copied, engines={"tensorrt-rtx": record})
    with pytest.raises(BackendError, match=r"only engines for NVIDIA GPUs \(tensorrt-rtx\)"):
        Detector(copied)


def test_bundle_without_engines(copied: Path) -> None:
    rewrite(copied, engines={})
    with pytest.raises(BackendError, match="made for no engine"):
        Detector(copied)


@pytest.mark.parametrize("name", ["openvino", "abacus"])
def test_engine_that_was_not_verified(copied: Path, name: str) -> None:
    records = Bundle(copied).manifest.engines
    rewrite(copied, engines={"onnxruntime": records["onnxruntime"]})
    with pytest.raises(BackendError, match=f"no threshold for the engine {name}, only for onnx"):
        Detector(copied, name)


def test_opened_bundle_is_taken(bundle_path: Path) -> None:
    bundle = Bundle(bundle_path)
    assert Detector(bundle, "onnxruntime", threads=1).bundle is bundle


def test_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="there is no such bundle"):
        Detector(tmp_path / "absent.stpm")


@pytest.mark.parametrize("name", [MODEL, GOLDEN])
def test_altered_file_is_refused(copied: Path, name: str) -> None:
    content = bytearray((copied / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copied / name).write_bytes(content)
    with pytest.raises(BundleError, match=f"{name}: differs from the manifest's hash"):
        Detector(copied, "onnxruntime")


def test_graph_that_cannot_be_loaded(copied: Path) -> None:
    rewrite(copied, model=b"no graph")
    with pytest.raises(BackendError, match="cannot run this graph"):
        Detector(copied, "onnxruntime")


def higher_map(golden: Golden) -> Golden:
    maps = golden.anomaly_maps.copy()
    maps[-1, 5, 5] += 0.01 * maps[-1].max()
    return replace(golden, anomaly_maps=maps)


def higher_scores(golden: Golden) -> Golden:
    return replace(golden, pred_scores=golden.pred_scores * np.float32(1.01))


def other_order(golden: Golden) -> Golden:
    return replace(golden, images=golden.images[::-1])


def maps_that_are_not_finite(golden: Golden) -> Golden:
    return replace(golden, anomaly_maps=np.full_like(golden.anomaly_maps, np.nan))


@pytest.mark.parametrize(
    "change", [higher_map, higher_scores, other_order, maps_that_are_not_finite]
)
def test_golden_images_must_be_reproduced(copied: Path, change: Callable[[Golden], Golden]) -> None:
    rewrite(copied, golden=change(Bundle(copied).golden()))
    with pytest.raises(ParityError, match=r"onnxruntime differs from the golden maps by") as caught:
        Detector(copied, "onnxruntime")
    assert "expected at most 0.0001" in str(caught.value)


def test_differences_within_the_tolerance_are_accepted(copied: Path) -> None:
    rewrite(copied, golden=higher_map(Bundle(copied).golden()), tolerance=0.02)
    assert Detector(copied, "onnxruntime").bundle.manifest.tolerance == 0.02


def test_graph_of_another_input_size(copied: Path) -> None:
    golden = Bundle(copied).golden()
    images = np.ascontiguousarray(golden.images[:, ::2])
    rewrite(copied, golden=replace(golden, images=images), input=InputContract((32, 64), (1, 4)))
    with pytest.raises(BackendError, match="cannot score a batch of shape") as caught:
        Detector(copied, "onnxruntime")
    assert "\n" not in str(caught.value)


def test_graph_of_another_map_size(copied: Path) -> None:
    golden = Bundle(copied).golden()
    maps = np.ascontiguousarray(golden.anomaly_maps[:, :32])
    rewrite(copied, golden=replace(golden, anomaly_maps=maps), map_size=(32, 64))
    with pytest.raises(ParityError, match="differs from the golden maps"):
        Detector(copied, "onnxruntime")


def test_only_the_cameras_size_fits_a_graph_that_resizes(copied: Path) -> None:
    rewrite(copied, input=InputContract((64, 64), (1, 4), "graph"))
    detector = Detector(copied, "onnxruntime")
    assert detector(noise(64, 64)).image_size == (64, 64)
    for shape in [(64, 65), (128, 128, 3), (63, 64)]:
        size = f"{shape[0]}x{shape[1]}"
        with pytest.raises(DataError, match=f"got an image of {size} pixels, expected 64x64"):
            detector.batch([noise(64, 64), noise(*shape)])


def test_fit_input() -> None:
    image = noise(8, 6, 3)
    np.testing.assert_array_equal(fit_input(image, InputContract((8, 6), (1, 1), "graph")), image)
    resized = fit_input(image, InputContract((4, 3)))
    np.testing.assert_array_equal(resized, resize(image, (4, 3)))


def test_scores_are_those_of_the_results(detector: Detector) -> None:
    images = [noise(64, 64), noise(80, 50), noise(64, 64)]
    scores = detector.scores(images)
    assert scores.dtype == np.float32
    assert scores.tolist() == [result.score for result in detector.batch(images)]
    assert detector.scores([]).shape == (0,)


def test_runtime_needs_no_training_library(bundle_path: Path, data_root: Path) -> None:
    script = (
        "import sys; import stpm.runtime.cli; from stpm.runtime import Detector; "
        "print(Detector(sys.argv[1], 'onnxruntime')(sys.argv[2]).score); "
        "print([m for m in ('torch', 'torchvision', 'onnx', 'scipy') if m in sys.modules])"
    )
    image = data_root / "weave/test/good/000.png"
    ran = subprocess.run(
        [sys.executable, "-c", script, bundle_path, image],
        capture_output=True,
        text=True,
        check=True,
    )
    score, imported = ran.stdout.splitlines()
    assert float(score) == pytest.approx(Detector(bundle_path, "onnxruntime")(image).score)
    assert imported == "[]"
    assert (bundle_path / MANIFEST).is_file()
