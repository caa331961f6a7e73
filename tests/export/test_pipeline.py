"""The build line: what it refuses, what it writes, and that engines agree with torch."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from real_data import REAL_DATA, needs_real_data

from stpm.export.options import ExportOptions
from stpm.export.pipeline import export_bundle, golden_count
from stpm.export.precision import reduced_scoring_layers
from stpm.runtime import BackendError, Bundle, DataError, Detector, ExportError, ParityError
from stpm.runtime.backends import ENGINES, installed_engines, open_engine
from stpm.runtime.backends.onnxruntime_cpu import OnnxRuntimeEngine
from stpm.runtime.batches import run_in_batches
from stpm.runtime.bundle.archive import InputContract
from stpm.runtime.bundle.parity import TOLERANCES, compare
from stpm.runtime.images.preprocess import load_image
from stpm.train.checkpoint import Checkpoint, load_checkpoint
from stpm.train.datasets import list_images
from stpm.train.methods import Network, config_from_dict

ExportOnnx = Callable[..., Path]
Networks = Callable[[str], Network]


def export(
    checkpoint: Checkpoint,
    out: Path,
    images: Sequence[Path],
    calibration: Sequence[Path] | None = None,
    **options: object,
) -> list[str]:
    """Export, verified and by default calibrated on the images; returns what was reported."""
    lines: list[str] = []
    export_bundle(
        checkpoint,
        out,
        ExportOptions(**{"batch": (1, 4)} | options),  # type: ignore[arg-type]
        verify=images,
        calibration=images if calibration is None else calibration,
        report=lines.append,
    )
    return lines


@pytest.fixture(scope="session")
def good(data_root: Path) -> list[Path]:
    return list_images(data_root / "weave/test/good")


@pytest.mark.parametrize("precision", TOLERANCES)
@pytest.mark.parametrize("name", [n for n, spec in ENGINES.items() if not spec.needs_gpu])
def test_parity(
    name: str, precision: str, networks: Networks, export_onnx: ExportOnnx, data_root: Path
) -> None:
    if name not in installed_engines():
        pytest.skip(f"{name} is not installed")
    model = export_onnx(precision).read_bytes()
    if (name, precision) == ("onnxruntime", "bf16"):
        with pytest.raises(BackendError, match="choose another engine or precision"):
            open_engine(name, model)
        return
    images = np.stack([load_image(p) for p in sorted(data_root.glob("weave/test/*/*.png"))])
    with torch.no_grad():
        reference = [x.numpy() for x in networks(precision)(torch.from_numpy(images))]
    engine = open_engine(name, model)
    outputs = run_in_batches(engine, images, InputContract((64, 64), (1, 4)))
    parity = compare(*reference, *outputs)
    assert parity.holds(TOLERANCES[precision]), parity
    assert reduced_scoring_layers(engine.layer_precisions()) == []


def test_blank_frames_have_finite_scores(export_onnx) -> None:  # type: ignore[no-untyped-def]
    blank = np.stack([np.full((64, 64, 3), value, np.uint8) for value in (0, 127, 255)])
    for precision in ("fp32", "fp16"):
        engine = open_engine("onnxruntime", export_onnx(precision).read_bytes())
        maps, scores = engine.run(blank)
        assert np.isfinite(maps).all()
        assert np.isfinite(scores).all()


def test_scoring_in_half_precision_is_seen() -> None:
    layers = {
        "student/node_conv2d_3": "bf16",
        "fp32/node__to_copy_2": "bf16",
        "fp32/node_matmul_1,fp32/node_mul_2": "f16",
        "fp32/node_div,fp32/node__to_copy_1": "bf16",
        "student/node_relu_4,fp32/node_linalg_vector_norm": "bf16",
        "Power_41,fp32/node_div_1,fp32/node_sub_1": "bf16",
        "Constant_43": "f16",
        "fp32/node_sum_1": "f32",
        "fp32/node_permute": "u8",
    }
    assert reduced_scoring_layers(layers) == [
        "fp32/node_matmul_1,fp32/node_mul_2",
        "Power_41,fp32/node_div_1,fp32/node_sub_1",
    ]


@pytest.mark.usefixtures("exports_once")
def test_an_engine_that_scores_in_half_precision_is_refused(
    checkpoint: Checkpoint,
    good: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    layers = {"teacher/node_Conv_1": "bf16", "fp32/node_mul": "bf16"}
    monkeypatch.setattr(OnnxRuntimeEngine, "layer_precisions", lambda _: layers)
    with pytest.raises(ParityError, match=r"1 layers.*fp32/node_mul"):
        export(checkpoint, tmp_path / "weave.stpm", good, engines=("onnxruntime",))
    assert list(tmp_path.iterdir()) == []


def test_the_bundle_scores_as_torch_does(
    bundle_path: Path, checkpoint: Checkpoint, data_root: Path
) -> None:
    path = data_root / "weave/test/hole/000.png"
    with torch.no_grad():
        _, score = checkpoint.model()(torch.tensor(load_image(path)[None]))
    for name in Bundle(bundle_path).manifest.engines:
        assert Detector(bundle_path, name)(path).score == pytest.approx(float(score), rel=1e-4)


def test_what_the_manifest_records(bundle_path: Path, checkpoint: Checkpoint) -> None:
    manifest = Bundle(bundle_path).manifest
    assert (manifest.name, manifest.method, manifest.precision) == ("weave", "stpm", "fp32")
    assert manifest.input == InputContract((64, 64), (1, 4), "host")
    assert manifest.map_size == (64, 64)
    assert manifest.tolerance == TOLERANCES["fp32"]
    assert set(manifest.engines) == set(installed_engines())
    provenance = manifest.provenance
    assert config_from_dict(provenance["config"]) == checkpoint.config
    assert provenance["teacher"] == checkpoint.teacher_id
    for key in ("data_sha256", "options", "best_epoch", "epochs_done", "versions"):
        assert provenance["training"][key] == checkpoint.training[key]
    assert (provenance["verified_on"], provenance["calibrated_on"]) == (4, 3)
    assert set(manifest.versions) >= {"stpm", "torch", "onnx", "python"}


def test_golden_images_are_the_lowest_the_median_and_the_highest(
    bundle_path: Path, checkpoint: Checkpoint, good: list[Path]
) -> None:
    images = torch.from_numpy(np.stack([load_image(path) for path in good]))
    with torch.no_grad():
        maps, scores = checkpoint.model()(images)
    chosen = np.sort(np.argsort(scores.numpy())[[0, 2, 3]])
    golden = Bundle(bundle_path).golden()
    np.testing.assert_array_equal(golden.images, images[chosen])
    np.testing.assert_allclose(golden.pred_scores, scores[chosen], rtol=1e-5)
    np.testing.assert_allclose(golden.anomaly_maps, maps[chosen], atol=1e-5 * scores.max())


def test_the_smallest_rate_that_the_images_support_is_the_default(bundle_path: Path) -> None:
    for record in Bundle(bundle_path).manifest.engines.values():
        assert record.calibration.image_count == 3
        assert record.calibration.false_alarm_rate == pytest.approx(1 / 4)


@pytest.mark.usefixtures("exports_once")
def test_one_in_a_hundred_is_the_default_where_the_images_support_it(
    checkpoint: Checkpoint, good: list[Path], tmp_path: Path
) -> None:
    out = tmp_path / "weave.stpm"
    export(checkpoint, out, good, calibration=good * 25, engines=("onnxruntime",))
    calibration = Bundle(out).manifest.engines["onnxruntime"].calibration
    assert (calibration.image_count, calibration.false_alarm_rate) == (100, 0.01)


@pytest.mark.usefixtures("exports_once")
def test_a_rate_of_zero_is_no_wish_for_the_default(
    checkpoint: Checkpoint, good: list[Path], tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="false-alarm rate is 0"):
        export(checkpoint, tmp_path / "weave.stpm", good, false_alarm_rate=0.0)


@pytest.mark.usefixtures("exports_once")
def test_a_rate_beyond_the_images_is_refused(
    checkpoint: Checkpoint, good: list[Path], tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=r"4 good images.*needs 99"):
        export(checkpoint, tmp_path / "weave.stpm", good, false_alarm_rate=0.01)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("exports_once")
def test_a_failed_export_leaves_the_old_bundle(
    checkpoint: Checkpoint,
    bundle_path: Path,
    good: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "weave.stpm"
    shutil.copytree(bundle_path, out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    monkeypatch.setitem(TOLERANCES, "fp32", 1e-30)
    with pytest.raises(ParityError, match="no bundle was written"):
        export(checkpoint, out, good)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert list(tmp_path.iterdir()) == [out]


def test_without_images_there_is_nothing_to_verify_with(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    with pytest.raises(ExportError, match="--calibrate DIR"):
        export(checkpoint, tmp_path / "weave.stpm", [])


@pytest.mark.usefixtures("exports_once")
def test_an_engine_that_cannot_run_the_graph_is_left_out(
    checkpoint: Checkpoint, good: list[Path], tmp_path: Path
) -> None:
    if "openvino" not in installed_engines():
        pytest.skip("openvino is not installed")
    out = tmp_path / "weave.stpm"
    lines = export(checkpoint, out, good, precision="bf16")
    assert any(line.startswith("onnxruntime: left out") for line in lines)
    assert set(Bundle(out).manifest.engines) == {"openvino"}
    with pytest.raises(BackendError, match="ONNX Runtime"):
        export(checkpoint, tmp_path / "b.stpm", good, precision="bf16", engines=("onnxruntime",))


@pytest.mark.usefixtures("exports_once")
def test_a_graph_that_resizes_takes_the_cameras_size_alone(
    checkpoint: Checkpoint, bundle_path: Path, tmp_path: Path
) -> None:
    camera = (96, 112)
    frames = []
    for seed in range(4):
        noise = np.random.default_rng(seed).integers(0, 256, (12, 14, 3), dtype=np.uint8)
        path = tmp_path / f"{seed}.png"
        Image.fromarray(noise).resize(camera[::-1]).save(path)
        frames.append(path)
    out = tmp_path / "camera.stpm"
    export(checkpoint, out, frames, camera_size=camera, batch=(2, 2))
    inside, outside = Detector(out, "onnxruntime"), Detector(bundle_path, "onnxruntime")
    for path in frames:
        result = inside(path)
        assert result.score == pytest.approx(outside(path).score, rel=1e-4)
        assert result.image_size == camera
    with pytest.raises(DataError, match="expected 96x112"):
        inside(np.zeros((64, 64, 3), np.uint8))


@needs_real_data
def test_a_real_student_keeps_its_scores(tmp_path: Path) -> None:
    checkpoint = load_checkpoint(
        REAL_DATA / "checkpoints/bottle_authors.pth.tar",
        REAL_DATA / "weights/resnet18_imagenet_layer3.safetensors",
    )
    images = sorted(REAL_DATA.glob("data/mvtec/bottle/test/*/000.png"))
    images += sorted(REAL_DATA.glob("data/mvtec/bottle/test/good/01*.png"))[:3]
    results = {}
    for precision, tolerance in (("fp32", 1e-4), ("fp16", 1e-2)):
        out = tmp_path / f"{precision}.stpm"
        export(checkpoint, out, images, precision=precision, engines=("onnxruntime",))
        parity = Bundle(out).manifest.engines["onnxruntime"].parity
        assert parity["map_difference"] <= tolerance
        detector = Detector(out, "onnxruntime")
        results[precision] = [result.score for result in detector.batch(images)]
        for grey in (0, 255):
            assert np.isfinite(detector(np.full((256, 256), grey, np.uint8)).score)
    assert np.argsort(results["fp32"]).tolist() == np.argsort(results["fp16"]).tolist()


def test_sizes_that_no_reader_opens_are_refused_before_work(checkpoint: Checkpoint) -> None:
    def no_work(_: str) -> None:
        raise AssertionError("work was begun")

    held_out = checkpoint.held_out_images()
    for size in ((16385, 8), (16384, 30000)):
        options = ExportOptions(camera_size=size)
        with pytest.raises(ExportError, match="expected sides up to 16384"):
            export_bundle(
                checkpoint,
                Path("never.stpm"),
                options,
                verify=held_out,
                calibration=held_out,
                report=no_work,
            )
    assert golden_count((256, 256), (256, 256)) > 3
    assert golden_count((16384, 16384), (256, 256)) == 1
    assert golden_count((16384, 16384), (16384, 16384)) == 0
