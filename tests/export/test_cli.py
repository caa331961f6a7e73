"""`stpm-export` as users run it."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from stpm.export import auto
from stpm.export.cli import main, parse_batch
from stpm.export.int8 import gate
from stpm.runtime import Bundle, Detector, backends
from stpm.runtime.bundle.parity import TOLERANCES
from stpm.train.checkpoint import load_checkpoint


def run(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert "Traceback" not in result.output
    return result.exit_code, result.stdout, result.stderr


def test_help_names_the_flags() -> None:
    code, stdout, _ = run("--help")
    assert code == 0
    for flag in (
        "--ckpt",
        "--fp16",
        "--bf16",
        "--int8",
        "--data",
        "--camera-size",
        "--batch",
        "--false-alarm-rate",
    ):
        assert flag in stdout


@pytest.mark.parametrize(
    ("text", "limits"), [("1", (1, 1)), ("8", (8, 8)), ("1..16", (1, 16)), ("4..4", (4, 4))]
)
def test_batch(text: str, limits: tuple[int, int]) -> None:
    assert parse_batch(text) == limits


@pytest.mark.parametrize(
    "arguments",
    [
        ("--fp16", "--bf16"),
        ("--bf16", "--int8"),
        ("--fp16", "--precision", "bf16"),
        ("--precision", "fp64"),
        ("--quantize", "good"),
        ("--fp16", "--data", "mvtec"),
        ("--batch", "0"),
        ("--batch", "4..1"),
        ("--batch", "many"),
        ("--batch", "1..5000"),
        ("--camera-size", "1024*768"),
        ("--camera-size", "0x5"),
        ("--camera-size", "20000x100"),
        (),
    ],
)
def test_wrong_usage(arguments: tuple[str, ...], checkpoint_path: Path) -> None:
    ckpt = ("--ckpt", checkpoint_path) if arguments else ()
    code, stdout, _ = run(*ckpt, *arguments)
    assert code == 2
    assert stdout == ""


def test_the_fewest_flags(
    checkpoint_path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    data_root: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    code, stdout, stderr = run("--ckpt", checkpoint_path)
    assert code == 0, stderr
    assert stdout == "weave.stpm\n"
    assert [path.name for path in tmp_path.iterdir()] == ["weave.stpm"]
    result = Detector(tmp_path / "weave.stpm")(data_root / "weave/test/good/000.png")
    assert result.anomaly_map.shape == (64, 64)

    before = (tmp_path / "weave.stpm/manifest.json").read_bytes()
    code, stdout, stderr = run("--ckpt", checkpoint_path)
    assert (code, stdout) == (1, "")
    assert "--overwrite" in stderr
    assert (tmp_path / "weave.stpm/manifest.json").read_bytes() == before


@pytest.mark.usefixtures("exports_once")
def test_calibrating_on_other_images(
    checkpoint_path: Path, tmp_path: Path, data_root: Path
) -> None:
    out = tmp_path / "a.stpm"
    folder = data_root / "weave/train/good"
    arguments = ("--ckpt", checkpoint_path, "--out", out, "--batch", "1..4")
    code, _, stderr = run(*arguments, "--calibrate", folder, "--false-alarm-rate", "0.2")
    assert code == 0, stderr
    for record in Bundle(out).manifest.engines.values():
        assert record.calibration.image_count == 15
        assert record.calibration.false_alarm_rate == 0.2


def test_held_out_images_that_are_gone(checkpoint_path: Path, tmp_path: Path) -> None:
    content = torch.load(checkpoint_path, weights_only=True)
    content["training"]["folder"] = str(tmp_path / "gone")
    moved = tmp_path / "moved.pt"
    torch.save(content, moved)
    code, stdout, stderr = run("--ckpt", moved, "--out", tmp_path / "moved.stpm")
    assert (code, stdout) == (1, "")
    assert "--calibrate DIR" in stderr
    assert "3 of 3 are missing" in stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["moved.pt"]


def test_missing_checkpoint(tmp_path: Path) -> None:
    code, _, stderr = run("--ckpt", tmp_path / "no.pt", "--out", tmp_path / "no.stpm")
    assert code == 1
    assert stderr.count("\n") == 1
    assert "there is no such checkpoint" in stderr


def test_missing_folder(checkpoint_path: Path, tmp_path: Path) -> None:
    code, _, stderr = run("--ckpt", checkpoint_path, "--out", tmp_path / "no/a.stpm")
    assert code == 1
    assert "there is no such folder" in stderr


@pytest.mark.usefixtures("exports_once")
def test_an_engine_that_is_not_installed(
    checkpoint_path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(backends, "is_installed", lambda spec: spec.library == "onnxruntime")
    out = tmp_path / "a.stpm"
    code, _, stderr = run(
        "--ckpt", checkpoint_path, "--out", out, "--batch", "1..4", "--engine", "openvino"
    )
    assert code == 1
    assert "pip install 'stpm[openvino]'" in stderr
    assert not out.exists()


@pytest.mark.usefixtures("exports_once")
def test_overwriting_a_bundle(checkpoint_path: Path, bundle_path: Path, tmp_path: Path) -> None:
    out = tmp_path / "weave.stpm"
    shutil.copytree(bundle_path, out)
    (out / "manifest.json").write_text("{}")
    arguments = ("--ckpt", checkpoint_path, "--out", out, "--batch", "1..4", "--overwrite")
    code, stdout, stderr = run(*arguments, "--engine", "onnxruntime")
    assert (code, stdout) == (0, f"{out}\n"), stderr
    assert list(Bundle(out).manifest.engines) == ["onnxruntime"]
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize("name", ["photos", "photos/1.png"])
def test_what_is_no_bundle_is_kept(checkpoint_path: Path, tmp_path: Path, name: str) -> None:
    photo = tmp_path / "photos/1.png"
    photo.parent.mkdir()
    photo.write_bytes(b"pixels")
    code, _, stderr = run("--ckpt", checkpoint_path, "--out", tmp_path / name, "--overwrite")
    assert code == 1
    assert stderr.count("\n") == 1
    assert "is not a bundle" in stderr
    assert photo.read_bytes() == b"pixels"


def test_int8_is_measured_on_labelled_images(
    checkpoint_path: Path, data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # After two epochs good and defective images score alike: rounding changes their order.
    monkeypatch.setattr(gate, "LARGEST_LOSS", 1)
    out = tmp_path / "weave.stpm"
    code, stdout, stderr = run(
        *("--ckpt", checkpoint_path, "--int8", "--data", data_root, "--out", out)
    )
    assert (code, stdout) == (0, f"{out}\n"), stderr
    assert "good images' maps" in stderr
    assert re.search(r"image_auroc [+-]0\.\d{4}, pixel_auroc .*, aupro [+-]0\.\d{4};", stderr)
    assert Detector(out)(data_root / "weave/test/hole/000.png").score > 0


def test_images_that_are_gone_are_asked_for(
    checkpoint_path: Path, data_root: Path, tmp_path: Path
) -> None:
    content = torch.load(checkpoint_path, weights_only=True)
    content["training"]["folder"] = str(tmp_path / "gone")
    moved = tmp_path / "weave.pt"
    torch.save(content, moved)
    code, _, stderr = run("--ckpt", moved, "--int8")
    assert code == 1
    assert "with --calibrate DIR" in stderr
    code, _, stderr = run("--ckpt", moved, "--int8", "--calibrate", data_root / "weave/test/good")
    assert code == 1
    assert "with --quantize DIR" in stderr


def test_images_that_were_trained_on_do_not_set_thresholds(
    checkpoint_path: Path, tmp_path: Path
) -> None:
    """By their pixels: copies under other names are the same images."""
    checkpoint = load_checkpoint(checkpoint_path)
    folder = tmp_path / "calibration"
    folder.mkdir()
    trained_on, held_out = checkpoint.train_images(), checkpoint.held_out_images()
    for i, path in enumerate(trained_on):
        shutil.copy(path, folder / f"a{i}{path.suffix}")
    arguments = ("--ckpt", checkpoint_path, "--out", tmp_path / "a.stpm", "--calibrate", folder)
    code, _, stderr = run(*arguments)
    assert code == 1
    assert f"all {len(trained_on)} images of --calibrate were used in training" in stderr
    for i, path in enumerate(held_out):
        shutil.copy(path, folder / f"b{i}{path.suffix}")
    code, _, stderr = run(*arguments, "--engine", "onnxruntime")
    assert code == 0, stderr
    total = len(trained_on) + len(held_out)
    assert f"{len(trained_on)} of the {total} images of --calibrate were used in training" in stderr


def test_the_input_size_of_a_foreign_checkpoint(
    checkpoint_path: Path, tmp_path: Path, data_root: Path
) -> None:
    checkpoint = load_checkpoint(checkpoint_path)
    parts = (("model_s", checkpoint.student), ("model_t", checkpoint.teacher))
    state = {f"{name}.{key}": value for name, part in parts for key, value in part.items()}
    torch.save({"state_dict": state}, tmp_path / "port.pth")
    good = data_root / "weave/train/good"
    arguments = ("--ckpt", tmp_path / "port.pth", "--out", tmp_path / "a.stpm")
    options = ("--calibrate", good, "--engine", "onnxruntime", "--input-size", "48x64")
    code, _, stderr = run(*arguments, *options)
    assert code == 0, stderr
    assert Bundle(tmp_path / "a.stpm").manifest.input.size == (48, 64)
    code, _, stderr = run(
        "--ckpt", checkpoint_path, "--out", tmp_path / "b.stpm", "--input-size", "48x64"
    )
    assert code == 1
    assert "leave --input-size out" in stderr


def test_an_image_score_of_the_highest_pixels(
    checkpoint_path: Path, tmp_path: Path, data_root: Path
) -> None:
    """It is in the graph: the score is the mean of the map's highest 1 %, of 64x64 pixels 41."""
    out = tmp_path / "part.stpm"
    code, _, stderr = run("--ckpt", checkpoint_path, "--out", out, "--score", "top1%")
    assert code == 0, stderr
    bundle = Bundle(out)
    assert bundle.manifest.provenance["config"]["score"] == "top1%"
    (image, *_) = sorted((data_root / "weave/test/hole").glob("*.png"))
    for engine in bundle.manifest.engines:
        result = Detector(bundle, engine)(image)
        highest = np.sort(result.anomaly_map, axis=None)[-41:]
        assert result.score == pytest.approx(float(highest.mean()), rel=1e-5)
    code, _, stderr = run("--ckpt", checkpoint_path, "--out", tmp_path / "b.stpm", "--score", "min")
    assert code == 1
    assert "got the score 'min', expected max, or topP%" in stderr


def test_auto_keeps_the_fastest_and_says_what_it_tried(
    checkpoint_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auto, "processor_precisions", lambda: ("fp32", "bf16"))
    monkeypatch.setattr(
        auto, "_latencies", lambda detectors, _: dict(zip(detectors, (2.0, 1.0), strict=True))
    )
    out = tmp_path / "part.stpm"
    code, stdout, stderr = run("--ckpt", checkpoint_path, "--out", out, "--precision", "auto")
    assert (code, stdout) == (0, f"{out}\n"), stderr
    assert Bundle(out).manifest.precision == "bf16"
    assert re.search(r"bf16 +1\.00 ms per image on \w+, kept\n", stderr)
    assert re.search(r"fp32 +2\.00 ms per image on \w+\n", stderr)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["part.stpm"]


def test_auto_leaves_out_what_fails_its_gate(
    checkpoint_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auto, "processor_precisions", lambda: ("fp32", "fp16"))
    monkeypatch.setitem(TOLERANCES, "fp16", 0.0)
    code, _, stderr = run(
        "--ckpt", checkpoint_path, "--out", tmp_path / "part.stpm", "--precision", "auto"
    )
    assert code == 0, stderr
    assert Bundle(tmp_path / "part.stpm").manifest.precision == "fp32"
    assert "fp16  refused: " in stderr
    monkeypatch.setitem(TOLERANCES, "fp32", 0.0)
    code, _, stderr = run(
        "--ckpt", checkpoint_path, "--out", tmp_path / "b.stpm", "--precision", "auto"
    )
    assert code == 1
    assert "error: no precision passed its checks; choose one with --precision." in stderr
    assert not (tmp_path / "b.stpm").exists()


def test_auto_tries_int8_with_labels_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auto, "processor_precisions", lambda: ("fp32", "int8"))
    assert auto.precisions_here(has_labels=False) == ["fp32"]
    assert auto.precisions_here(has_labels=True) == ["fp32", "int8"]
    monkeypatch.setattr(auto, "processor_precisions", lambda: None)
    assert auto.precisions_here(has_labels=True) == ["fp32"]
