"""Tiles: the stitched map is the whole image's, at seams and corners, for any size."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from stpm.export import auto
from stpm.export.cli import main as export_main
from stpm.export.int8 import gate
from stpm.export.tiles import receptive_radius, tiling_of
from stpm.runtime import Bundle, Detector
from stpm.runtime.bundle.tiling import Tiling
from stpm.runtime.cli import main as run_main
from stpm.runtime.errors import BundleError, DataError
from stpm.runtime.images.preprocess import load_image
from stpm.runtime.serve.cli import main as serve_main
from stpm.runtime.site.cli import main as calibrate_main
from stpm.runtime.tiled import bilinear_axis, product_of_levels
from stpm.train.backbones import pyramid
from stpm.train.checkpoint import load_checkpoint
from stpm.train.cli import main as train_main
from stpm.train.evaluate import checkpoint_scorer
from stpm.train.methods.stpm.network import ModelConfig, Stpm

SIZE = (616, 520)
"""Of the photographs: neither side is a multiple of the stride."""


def photograph(seed: int) -> np.ndarray:
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    wave = 110 + 40 * np.sin(rows / 7.0 + seed) + 30 * np.cos(columns / 11.0)
    noise = np.random.default_rng(seed).normal(0, 12, (*SIZE, 3))
    return (wave[..., None] + noise).clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photographs") / "plate"
    folder.mkdir()
    for seed in range(3):
        Image.fromarray(photograph(seed)).save(folder / f"{seed}.png")
    return folder


@pytest.fixture(scope="module")
def trained(photographs: Path, teacher_file: Path) -> Path:
    out = photographs.parent / "plate.pt"
    arguments = ["--good", photographs, "--tile", 64, "--epochs", 1, "--out", out]
    arguments += ["--batch-size", 4, "--learning-rate", 0.4]  # defects stand out after an epoch
    arguments += ["--teacher-weights", teacher_file, "--device", "cpu", "--precision", "fp32"]
    result = CliRunner().invoke(train_main, list(map(str, arguments)))
    assert result.exit_code == 0, result.output
    return out


@pytest.fixture(scope="module")
def bundle(trained: Path, photographs: Path) -> Path:
    out = trained.with_suffix(".stpm")
    arguments = ["--ckpt", trained, "--tile", 288, "--calibrate", photographs, "--out", out]
    result = CliRunner().invoke(export_main, [*map(str, arguments), "--batch", "1..3"])
    assert result.exit_code == 0, result.output
    return out


def whole(trained: Path, image: np.ndarray) -> np.ndarray:
    """The map of torch, run on the whole image at once."""
    (anomaly_map,), _ = checkpoint_scorer(load_checkpoint(trained))([image])
    return anomaly_map


def test_every_engine_stitches_the_map_of_the_whole_image(bundle: Path, trained: Path) -> None:
    image = photograph(7)
    image[300:306, 250:256] = 255  # at a seam
    image[-3:, -3:] = 0  # in a corner
    expected = whole(trained, image)
    assert expected.shape == SIZE
    engines = Bundle(bundle).manifest.engines
    assert {"onnxruntime", "openvino"} <= engines.keys()
    for engine in engines:
        result = Detector(bundle, engine)(image)
        assert np.abs(result.anomaly_map - expected).max() <= 1e-5 * expected.max()
        assert result.score == pytest.approx(expected.max(), rel=1e-5)
        assert result.image_size == SIZE


@pytest.mark.parametrize("options", [(), ("--grey", "--distil", 1)])
def test_tiles_in_int8_give_the_map_of_one_that_holds_the_image(
    options: tuple[object, ...], trained: Path, photographs: Path, tmp_path: Path
) -> None:
    good = grey_copies(photographs, tmp_path) if "--grey" in options else photographs
    maps = {}
    for side in (288, 1024):
        out = tmp_path / f"{side}.stpm"
        arguments = ["--ckpt", trained, "--tile", side, "--int8", *options, "--out", out]
        arguments += ["--calibrate", good, "--quantize", good, "--engine", "onnxruntime"]
        result = CliRunner().invoke(export_main, list(map(str, arguments)))
        assert result.exit_code == 0, result.output
        manifest = Bundle(out).manifest
        assert manifest.tiles is not None
        assert (manifest.tiles.size == SIZE) == (side == 1024)
        assert 0.8 < manifest.engines["onnxruntime"].parity["good_map_ratio"] <= 1.3
        maps[side] = Detector(out, "onnxruntime")(good / "1.png").anomaly_map
    difference = np.abs(maps[288] - maps[1024]).max()
    # Where a value lies between two whole numbers, another order of sums may round it up.
    assert difference <= 0.02 * maps[1024].max()
    image = load_image(good / "1.png")
    if image.shape[2] == 1:
        image = np.repeat(image, 3, axis=2)
    exact = whole(trained, image)
    assert np.corrcoef(maps[288].ravel(), exact.ravel())[0, 1] > 0.98


def test_the_gate_of_int8_looks_at_labelled_images_of_full_size(
    trained: Path, photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "data"
    for kind in ("train/good", "test/good", "test/dot", "ground_truth/dot"):
        (data / "plate" / kind).mkdir(parents=True)
    for seed in range(4):
        image, mask = photograph(seed), np.zeros(SIZE, np.uint8)
        Image.fromarray(image).save(data / f"plate/train/good/{seed}.png")
        Image.fromarray(photograph(seed + 9)).save(data / f"plate/test/good/{seed}.png")
        image[300:316, 100 * seed : 100 * seed + 16] = 255
        mask[300:316, 100 * seed : 100 * seed + 16] = 255
        Image.fromarray(image).save(data / f"plate/test/dot/{seed}.png")
        Image.fromarray(mask).save(data / f"plate/ground_truth/dot/{seed}_mask.png")
    monkeypatch.setattr(gate, "MOST_PIXELS", 8 * SIZE[0] * SIZE[1] // 9)  # every third row
    out = tmp_path / "plate.stpm"
    arguments = ["--ckpt", trained, "--tile", 288, "--int8", "--data", data, "--out", out]
    arguments += ["--calibrate", photographs, "--quantize", photographs]
    result = CliRunner().invoke(export_main, [*map(str, arguments), "--engine", "onnxruntime"])
    assert result.exit_code == 0, result.output
    parity = Bundle(out).manifest.engines["onnxruntime"].parity
    assert {"image_auroc_loss", "pixel_auroc_loss", "aupro_loss"} <= parity.keys()
    assert parity["pixel_auroc_loss"] != 0


def grey_copies(photographs: Path, folder: Path) -> Path:
    grey = folder / "grey"
    grey.mkdir()
    for path in photographs.iterdir():
        Image.open(path).convert("L").save(grey / path.name)
    return grey


def test_the_graph_takes_tiles_and_golden_images_are_corners(bundle: Path) -> None:
    manifest = Bundle(bundle).manifest
    assert manifest.tiles is not None
    assert manifest.tiles.strides == (4, 8, 16)
    assert manifest.input.size == manifest.map_size == SIZE
    assert all((a - b) % 16 == 0 for a, b in zip(SIZE, manifest.tiles.size, strict=True))
    golden = Bundle(bundle).golden()
    assert golden.images.shape[1:3] == manifest.golden_size < SIZE


def test_other_sizes_are_refused(bundle: Path) -> None:
    with pytest.raises(DataError, match="expected 616x520, for which the bundle was exported"):
        Detector(bundle, "onnxruntime")(np.zeros((600, 520, 3), np.uint8))


def test_commands_name_the_image_of_another_size(
    bundle: Path, photographs: Path, tmp_path: Path
) -> None:
    line = shutil.copytree(bundle, tmp_path / "line.stpm")
    other = tmp_path / "other.png"
    Image.fromarray(photograph(0)[:600]).save(other)
    wanted = f"{other}: got an image of 600x520 pixels, expected 616x520"
    for main in (run_main, calibrate_main):
        result = CliRunner().invoke(main, [str(line), str(photographs), str(other)])
        assert result.exit_code == 1
        assert wanted in result.stderr


def test_regions_of_interest_of_large_images(
    bundle: Path, photographs: Path, trained: Path, tmp_path: Path
) -> None:
    line = Path(shutil.copytree(bundle, tmp_path / "line.stpm"))
    mask = np.zeros(SIZE, np.uint8)
    mask[500:, 400:] = 255  # beyond the golden images
    Image.fromarray(mask).save(tmp_path / "corner.png")
    arguments = [str(line), str(photographs), "--roi", str(tmp_path / "corner.png")]
    result = CliRunner().invoke(calibrate_main, arguments)
    assert result.exit_code == 0, result.output
    image = load_image(photographs / "1.png")
    expected = whole(trained, image)[500:, 400:].max()
    assert Detector(line, "onnxruntime")(image).score == pytest.approx(expected, rel=1e-5)


def test_tiles_are_cut_for_any_size() -> None:
    model = Stpm(ModelConfig(input_size=(64, 64)), pyramid("resnet18", ("layer1", "layer2")))
    for height, width in itertools.product((170, 333, 1024), (200, 651, 2999)):
        tiling = tiling_of(model, (height, width), 192, (1, 4))
        for axis, length in enumerate((height, width)):
            cuts = list(tiling.cuts(length, axis))
            assert cuts[0][1] == 0
            assert cuts[-1][2] == length
            assert cuts[-1][0] + tiling.size[axis] == length
            for (start, _, kept_to), (after, kept_from, _) in itertools.pairwise(cuts):
                assert kept_to == kept_from  # nothing twice, nothing left out
                assert kept_from - after >= tiling.margin
                assert start + tiling.size[axis] - kept_to >= tiling.margin
                assert after % tiling.stride == 0


@pytest.mark.parametrize(
    "levels", [("layer1",), ("layer1", "layer2"), ("layer1", "layer2", "layer3")]
)
def test_a_pixel_changes_no_feature_beyond_its_radius(levels: tuple[str, ...]) -> None:
    torch.manual_seed(0)
    network = pyramid("resnet18", levels).eval()
    radius, side = receptive_radius(network), 480
    image = torch.rand(1, 3, side, side)
    other = image.clone()
    at = side // 2
    other[0, :, at, at] += 50
    with torch.no_grad():
        before, after = network(image)[-1], network(other)[-1]
    stride = side // before.shape[-1]
    rows, columns = (before != after).any(dim=1)[0].nonzero(as_tuple=True)
    reached = max(int((stride * cells - at).abs().max()) for cells in (rows, columns))
    assert radius - 2 * stride < reached <= radius


@pytest.mark.parametrize("size", [(5, 80), (188, 3000), (7, 7)])
def test_upsampling_is_torchs(size: tuple[int, int]) -> None:
    values = np.random.default_rng(0).random((size[0], 6), np.float32)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(values)[None, None], size=(size[1], 90), mode="bilinear"
    )[0, 0].numpy()
    np.testing.assert_allclose(product_of_levels([values], (size[1], 90)), expected, atol=2e-5)
    low, high, share = bilinear_axis(*size)
    assert low.max() <= high.max() == size[0] - 1
    assert (share >= 0).all()
    assert (share < 1).all()


TILES = {"size": [64, 64], "batch": [1, 2], "margin": 16, "strides": [4, 8, 16]}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("size", None),
        ("size", [64]),
        ("size", [0, 64]),
        ("size", [65, 64]),
        ("batch", [2, 1]),
        ("batch", []),
        ("margin", 8),
        ("margin", -16),
        ("margin", 32),
        ("margin", 1.0),
        ("strides", []),
        ("strides", [4, 8, 12]),
        ("strides", [4] * 9),
        ("strides", [4, "8"]),
        ("strides", [128]),
    ],
)
def test_malformed_tiles_are_refused(key: str, value: object) -> None:
    assert Tiling.from_dict(TILES, (128, 192)).step(0) == 32
    with pytest.raises(ValueError, match=r"tiles"):
        Tiling.from_dict(TILES | {key: value}, (128, 192))


def refused(*arguments: object) -> str:
    result = CliRunner().invoke(export_main, [str(argument) for argument in arguments])
    assert result.exit_code == 1, result.output
    return result.stderr.splitlines()[-1]


def test_what_cannot_be_exported_is_said(
    trained: Path, checkpoint_path: Path, photographs: Path, tmp_path: Path
) -> None:
    out = ("--out", tmp_path / "a.stpm", "--calibrate", photographs)
    said = refused("--ckpt", trained, *out)
    assert "was trained on tiles of 64 pixels; export it with --tile, too" in said
    said = refused("--ckpt", checkpoint_path, "--tile", 288, *out)
    assert "was trained on whole images; export it without --tile" in said
    said = refused("--ckpt", trained, "--tile", 192, *out)
    assert "expected tiles of at least 240 pixels" in said
    assert not (tmp_path / "a.stpm").exists()


def test_a_bundle_whose_tiles_do_not_fit_is_refused(bundle: Path, tmp_path: Path) -> None:
    line = Path(shutil.copytree(bundle, tmp_path / "line.stpm"))
    values = json.loads((line / "manifest.json").read_text())
    values["tiles"]["margin"] = 144
    (line / "manifest.json").write_text(json.dumps(values))
    with pytest.raises(BundleError, match="do not fit"):
        Bundle(line)


@pytest.mark.parametrize(
    "arguments", [("triton",), ("triton", "--backend", "python"), ("openvino",)]
)
def test_a_graph_of_tiles_is_not_served(
    arguments: tuple[str, ...], bundle: Path, tmp_path: Path
) -> None:
    command, *options = arguments
    result = CliRunner().invoke(
        serve_main, [command, str(bundle), str(tmp_path / "models"), *options]
    )
    assert result.exit_code == 1
    assert "cuts its images into tiles" in result.stderr
    assert not (tmp_path / "models").exists()


def test_auto_compares_precisions_on_whole_images(
    trained: Path, photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auto, "processor_precisions", lambda: ("fp32", "fp16"))
    out = tmp_path / "plate.stpm"
    arguments = ["--ckpt", trained, "--tile", 288, "--precision", "auto", "--out", out]
    arguments += ["--calibrate", photographs, "--engine", "onnxruntime"]
    result = CliRunner().invoke(export_main, list(map(str, arguments)))
    assert result.exit_code == 0, result.output
    assert result.stderr.count("ms per image on onnxruntime") == 2
    manifest = Bundle(out).manifest
    assert manifest.tiles is not None
    assert f"{manifest.precision:5}" in next(
        line for line in result.stderr.splitlines() if line.endswith(", kept")
    )
