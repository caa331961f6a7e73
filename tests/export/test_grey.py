"""One plane of grey: the score of three equal planes, in every precision and engine."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from stpm.export.cli import main as export_main
from stpm.export.graph import DeploymentGraph
from stpm.export.grey import grey_network
from stpm.export.int8.quantize import quantize
from stpm.export.onnx import onnx_from_graph
from stpm.export.tensorrt import build_engine
from stpm.runtime import Bundle, Detector
from stpm.runtime.backends import open_engine
from stpm.runtime.backends.tensorrt.build import BuildOptions
from stpm.runtime.backends.torch_cuda.network import FusedNetwork
from stpm.runtime.batches import run_in_batches
from stpm.runtime.bundle.archive import InputContract
from stpm.runtime.bundle.parity import TOLERANCES, compare
from stpm.runtime.cli import main as run_main
from stpm.runtime.errors import DataError
from stpm.runtime.images.preprocess import load_image, resize
from stpm.runtime.site.cli import main as calibrate_main
from stpm.train.backbones import LEVELS, pyramid
from stpm.train.checkpoint import load_checkpoint
from stpm.train.datasets import list_images
from stpm.train.methods import Network
from stpm.train.methods.stpm.network import ModelConfig, Stpm

SIZE = (64, 96)
CAMERA = (100, 130)
STEMS = ("resnet18", "densenet121", "efficientnet_lite0", "squeezenet1_1")
"""Those that differ in how the convolution of the image pads."""


def model_of(backbone: str, size: tuple[int, int] = SIZE) -> Stpm:
    levels = LEVELS[:2]
    config = ModelConfig(backbone=backbone, levels=levels, input_size=size)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        return Stpm(config, pyramid(backbone, levels)).eval()


def planes(count: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Noise with borders of white and of black, where padding would show; uint8 (N,H,W,1)."""
    images = np.random.default_rng(0).integers(0, 256, (count, *size, 1), np.uint8)
    images[0, :4] = images[0, :, -4:] = 255
    images[-1, -4:] = images[-1, :, :4] = 0
    return images


def of_three(model: Network, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What the network makes of three equal planes."""
    with torch.no_grad():
        maps, scores = model(torch.from_numpy(np.repeat(images, 3, axis=3)))
    return maps.numpy(), scores.numpy()


@pytest.mark.parametrize("backbone", STEMS)
def test_features_are_those_of_three_equal_planes(backbone: str) -> None:
    model = model_of(backbone)
    grey = grey_network(model)
    images = torch.from_numpy(planes(2))
    with torch.no_grad():
        wished = model.double().features(model.normalise(images.expand(-1, -1, -1, 3)).double())
        found = grey.double().features(grey.normalise(images).double())
    for levels, expected in zip(found, wished, strict=True):
        for level, reference in zip(levels, expected, strict=True):
            assert float((level - reference).abs().max()) <= 1e-6 * float(reference.abs().max())


@pytest.mark.parametrize("method", ["rd", "stad", "spade"])
def test_every_method_scores_as_three_equal_planes(
    method: str, request: pytest.FixtureRequest
) -> None:
    if method == "spade":
        pytest.importorskip("faiss", reason="the extra spade is not installed")
    model = load_checkpoint(request.getfixturevalue(f"{method}_path")).model()
    images = planes(2, model.input_size)
    with torch.no_grad():
        found = [x.numpy() for x in grey_network(model)(torch.from_numpy(images))]
    assert compare(*of_three(model, images), *found).holds(1e-4)


@pytest.mark.parametrize(
    ("engine", "precision", "camera_size"),
    [
        ("onnxruntime", "fp32", None),
        ("onnxruntime", "fp32", CAMERA),
        ("onnxruntime", "fp16", None),
        ("openvino", "fp32", CAMERA),
        ("openvino", "fp16", None),
        ("openvino", "bf16", CAMERA),
        ("openvino", "int8", None),
    ],
)
def test_engines_score_as_three_equal_planes(
    engine: str, precision: str, camera_size: tuple[int, int] | None, tmp_path: Path
) -> None:
    model = model_of("resnet18")
    grey = grey_network(model)
    if precision == "int8":
        pixels = torch.from_numpy(planes(4))
        model, grey = (
            quantize(net, pixels.expand(-1, -1, -1, net.channels)) for net in (model, grey)
        )
    outputs = []
    size = camera_size or SIZE
    for network in (model, grey):
        path = tmp_path / "model.onnx"
        onnx_from_graph(DeploymentGraph(network, precision, camera_size), path, (1, 2))
        images = np.repeat(planes(2, size), network.channels, axis=3)
        contract = InputContract(size, (1, 2), channels=network.channels)
        outputs.append(run_in_batches(open_engine(engine, path.read_bytes()), images, contract))
    # Weights are rounded otherwise, within what either may differ from FP32.
    limit = 1e-5 if precision == "fp32" else 2 * TOLERANCES[precision]
    assert compare(*outputs[0], *outputs[1]).holds(limit)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_torch_cuda_reads_the_graph(precision: str, tmp_path: Path) -> None:
    graph = DeploymentGraph(grey_network(model_of("resnet18")), precision)
    onnx_from_graph(graph, tmp_path / "model.onnx", (1, 4))
    network = FusedNetwork((tmp_path / "model.onnx").read_bytes(), torch.device("cpu"))
    assert network.image_shape == (*SIZE, 1)
    images = torch.from_numpy(planes(3))
    with torch.no_grad():
        expected = [x.numpy() for x in graph(images)]
    found = [x.numpy() for x in network.score(images)]
    assert compare(expected[0], expected[1], *found).holds(TOLERANCES[precision])


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_tensorrt_rtx_builds_it(precision: str, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
    graph = DeploymentGraph(grey_network(model_of("resnet18")), precision)
    onnx_from_graph(graph, tmp_path / "model.onnx", (1, 4))
    content = (tmp_path / "model.onnx").read_bytes()
    built = build_engine("tensorrt-rtx", content, precision, (1, 4), BuildOptions())
    assert built.content is not None


@pytest.fixture(scope="module")
def bundle(
    checkpoint_path: Path, data_root: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    out = tmp_path_factory.mktemp("grey") / "grey.stpm"
    good = data_root / "weave/test/good"
    arguments = ["--ckpt", checkpoint_path, "--grey", "--batch", "1..4", "--calibrate", good]
    result = CliRunner().invoke(export_main, [*map(str, arguments), "--out", str(out)])
    assert result.exit_code == 0, result.output
    return out


def test_a_bundle_for_grey_says_so_and_takes_one_plane(bundle: Path, checkpoint_path: Path) -> None:
    manifest = Bundle(bundle).manifest
    assert manifest.input.channels == 1
    graph = onnx.load_from_string(Bundle(bundle).read("model.onnx")).graph
    assert [axis.dim_value for axis in graph.input[0].type.tensor_type.shape.dim][1:] == [64, 64, 1]
    assert Bundle(bundle).golden().images.shape[1:] == (64, 64, 1)
    for record in manifest.engines.values():
        assert not record.verified or record.parity["map_difference"] < 1e-5


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_grey_in_any_form_scores_as_three_equal_planes(
    engine: str, bundle: Path, checkpoint_path: Path, data_root: Path
) -> None:
    detector = Detector(bundle, engine)
    paths = list_images(data_root / "weave/test/hole")
    images = np.stack([load_image(path, channels=1) for path in paths])
    _, expected = of_three(load_checkpoint(checkpoint_path).model(), images)
    forms = {
        "file": paths,
        "(H,W)": list(images[..., 0]),
        "(H,W,1)": list(images),
        "equal colours": list(np.repeat(images, 3, axis=3)),
        "16 bits": list(images[..., 0].astype(np.uint16) * 257),
        "Pillow": [Image.fromarray(image[..., 0]) for image in images],
    }
    for form, several in forms.items():
        np.testing.assert_allclose(detector.scores(several), expected, rtol=1e-5, err_msg=form)
    assert detector.prepare(list(images)).shape == (len(images), 64, 64, 1)
    large = np.repeat(np.repeat(images[0], 3, axis=0), 3, axis=1)
    np.testing.assert_array_equal(
        detector.prepare([large])[0], resize(np.repeat(large, 3, axis=2), (64, 64))[..., :1]
    )


def test_colours_are_refused(bundle: Path, data_root: Path, tmp_path: Path) -> None:
    colours = np.repeat(planes(1, (64, 64)), 3, axis=3)[0]
    colours[40, 40, 2] ^= 1
    with pytest.raises(DataError, match=r"red, green and blue differ, expected grey"):
        Detector(bundle, "onnxruntime")(colours)
    with pytest.raises(DataError, match="without --grey"):
        Detector(bundle, "onnxruntime").prepare([colours])
    Image.fromarray(colours).save(tmp_path / "red.png")
    good = list_images(data_root / "weave/test/good")[0]
    result = CliRunner().invoke(run_main, [str(bundle), str(good), str(tmp_path / "red.png")])
    assert result.exit_code == 1
    assert len(result.stdout.splitlines()) == 1
    assert "red.png: got an image whose red" in " ".join(result.stderr.split())


def test_an_export_on_colours_is_refused(
    checkpoint_path: Path, data_root: Path, tmp_path: Path
) -> None:
    good = Path(shutil.copytree(data_root / "weave/test/good", tmp_path / "good"))
    Image.new("RGB", (64, 64), (10, 20, 30)).save(good / "zz.png")
    arguments = [
        "--ckpt",
        checkpoint_path,
        "--grey",
        "--calibrate",
        good,
        "--out",
        tmp_path / "a.stpm",
    ]
    result = CliRunner().invoke(export_main, [str(argument) for argument in arguments])
    assert result.exit_code == 1
    assert "zz.png: got an image whose red, green and blue differ" in result.stderr
    assert not (tmp_path / "a.stpm").exists()


def test_it_is_calibrated_on_site(bundle: Path, data_root: Path, tmp_path: Path) -> None:
    line = Path(shutil.copytree(bundle, tmp_path / "line.stpm"))
    good = data_root / "weave/test/good"
    result = CliRunner().invoke(calibrate_main, [str(line), str(good)])
    assert result.exit_code == 0, result.output
    for engine, record in Bundle(line).manifest.engines.items():
        scores = sorted(Detector(line, engine).scores(list_images(good)).tolist())
        assert list(record.calibration.scores) == pytest.approx(scores, rel=1e-6)
        assert len(record.calibration.image_statistics["brightness"]) == 4
