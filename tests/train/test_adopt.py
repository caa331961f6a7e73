"""Files of other programs: nothing in them is run, and their own recipe is kept."""

from __future__ import annotations

import enum
import sys
import types
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms import v2

from stpm.runtime import CheckpointError
from stpm.train.adopt.inert import Inert, load_inert
from stpm.train.backbones import StateDict, pyramid
from stpm.train.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from stpm.train.methods.stpm.network import ModelConfig, Stpm

LEVELS = ("layer1", "layer2", "layer3")
SIZE = (48, 80)
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.5)


def weights(seed: int) -> StateDict:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return dict(pyramid("resnet18", LEVELS).state_dict())


TEACHER, STUDENT = weights(1), weights(2)


def named(student: str, teacher: str | None = None) -> dict[str, Tensor]:
    state = {f"{student}{key}": value for key, value in STUDENT.items()}
    parts = TEACHER if teacher is not None else {}
    return state | {f"{teacher}{key}": value for key, value in parts.items()}


ANOMALIB = named("model.student_model.feature_extractor.", "model.teacher_model.feature_extractor.")


def steps(*chosen: Any) -> v2.Compose:
    resize = v2.Resize(SIZE, antialias=True)
    return v2.Compose([resize, *chosen, v2.Normalize(list(MEAN), list(STD))])


def description(*chosen: str, size: object = SIZE, antialias: bool = True) -> dict[str, Any]:
    """As anomalib 2 writes its transform down."""

    def step(name: str, **arguments: Any) -> dict[str, Any]:
        return {"class_path": f"torchvision.transforms.v2.{name}", "init_args": arguments}

    resize = step("Resize", size=size, interpolation="bilinear", antialias=antialias)
    whole = [resize, *map(step, chosen), step("Normalize", mean=list(MEAN), std=list(STD))]
    return {"transform": step("Compose", transforms=whole)}


class PreProcessor(torch.nn.Module):
    """Pickled under anomalib's name."""

    def __init__(self, transform: Any) -> None:
        super().__init__()
        self.transform = transform
        self.export_transform = transform


class AnyNode:
    def __init__(self, value: Any) -> None:
        self.__dict__["_val"] = value


class DictConfig(dict[str, Any]):
    """omegaconf's, as it is pickled: its entries are nodes in the attribute `_content`."""

    def __init__(self, content: dict[str, Any]) -> None:
        nodes = {
            key: DictConfig(value) if isinstance(value, dict) else AnyNode(value)
            for key, value in content.items()
        }
        self.__dict__["_content"] = nodes


@pytest.fixture
def foreign_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the classes above be pickled as those of anomalib and omegaconf."""
    names = {
        "anomalib.pre_processing.pre_processor": PreProcessor,
        "omegaconf.nodes": AnyNode,
        "omegaconf.dictconfig": DictConfig,
    }
    for name, kind in names.items():
        parts = name.split(".")
        for length in range(1, len(parts) + 1):
            package = ".".join(parts[:length])
            monkeypatch.setitem(sys.modules, package, types.ModuleType(package))
        monkeypatch.setattr(kind, "__module__", name)
        monkeypatch.setattr(sys.modules[name], kind.__name__, kind, raising=False)


def saved(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


def expected_scores(images: Tensor) -> Tensor:
    """Without this project: torchvision's normalisation, cosine distances, a product."""
    x = v2.Normalize(list(MEAN), list(STD))(images.permute(0, 3, 1, 2).float() / 255)
    with torch.random.fork_rng():
        networks = [pyramid("resnet18", LEVELS).eval() for _ in range(2)]
    product = torch.ones(len(images), 1, *SIZE)
    with torch.no_grad():
        for network, state in zip(networks, (TEACHER, STUDENT), strict=True):
            network.load_state_dict(state)
        for t, s in zip(networks[0](x), networks[1](x), strict=True):
            distance = 2 * (1 - torch.nn.functional.cosine_similarity(t, s, dim=1))
            product *= torch.nn.functional.interpolate(
                distance[:, None], size=SIZE, mode="bilinear"
            )
    return product.amax(dim=(1, 2, 3))


def assert_own_recipe(checkpoint: Checkpoint) -> None:
    assert checkpoint.config.input_size == SIZE
    random = np.random.default_rng(0)
    images = torch.from_numpy(random.integers(0, 256, (3, *SIZE, 3), np.uint8))
    with torch.no_grad():
        scores = checkpoint.model()(images)[1]
    torch.testing.assert_close(scores, expected_scores(images), rtol=1e-3, atol=0)


CONTENTS: dict[str, Callable[[], dict[str, Any]]] = {
    "anomalib 2, described": lambda: {"anomalib_pre_processor_config": description()},
    "anomalib 2, an object": lambda: {
        "hyper_parameters": {"pre_processor": PreProcessor(steps()), "backbone": "resnet18"}
    },
    "anomalib 1, an object": lambda: {"transform": steps()},
    "timm's name": lambda: {
        "hyper_parameters": {"backbone": "resnet18.tv_in1k", "layers": list(LEVELS)},
        "anomalib_pre_processor_config": description(),
    },
}


@pytest.mark.usefixtures("foreign_names")
@pytest.mark.parametrize("kind", CONTENTS)
def test_the_recipe_of_the_file_is_kept(kind: str, tmp_path: Path) -> None:
    path = saved(tmp_path / "model.ckpt", {"state_dict": ANOMALIB} | CONTENTS[kind]())
    adopted = load_checkpoint(path)
    assert_own_recipe(adopted)
    save_checkpoint(adopted, tmp_path / "ours.pt")
    assert_own_recipe(load_checkpoint(tmp_path / "ours.pt"))


@pytest.mark.usefixtures("foreign_names")
def test_the_options_of_anomalib_0(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = {
        "dataset": {"image_size": 96, "center_crop": None, "normalization": "none"},
        "model": {"backbone": "resnet18", "layers": ["layer1", "layer2", "layer3"]},
    }
    content = {"state_dict": ANOMALIB, "hyper_parameters": DictConfig(options)}
    config = load_checkpoint(saved(tmp_path / "model.ckpt", content)).config
    assert config == ModelConfig(input_size=(96, 96), mean=(0.0,) * 3, std=(255.0,) * 3)
    assert "resized without antialiasing" in capsys.readouterr().err
    options["dataset"]["center_crop"] = 64
    content["hyper_parameters"] = DictConfig(options)
    with pytest.raises(CheckpointError, match="trained with the step center_crop"):
        load_checkpoint(saved(tmp_path / "model.ckpt", content))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (description("CenterCrop"), "the step CenterCrop, which stpm does not support"),
        (description("GaussianBlur"), "the step GaussianBlur"),
        (description(size=256), r"resized to 256 \(bilinear\), expected"),
    ],
)
def test_other_steps_are_refused_by_name(
    settings: dict[str, Any], said: str, tmp_path: Path
) -> None:
    content = {"state_dict": ANOMALIB, "anomalib_pre_processor_config": settings}
    with pytest.raises(CheckpointError, match=said):
        load_checkpoint(saved(tmp_path / "model.ckpt", content))
    crop = {"state_dict": ANOMALIB, "transform": steps(v2.CenterCrop(32))}
    with pytest.raises(CheckpointError, match="CenterCrop"):
        load_checkpoint(saved(tmp_path / "model.ckpt", crop))


FILES: dict[str, dict[str, Any]] = {
    "a port to Lightning": {"state_dict": named("model_s.", "model_t.")},
    "DataParallel": {"state_dict": named("module.student.", "module.teacher.")},
    "torch.compile": {"state_dict": named("_orig_mod.model_s.", "_orig_mod.model_t.")},
    "both inside": {
        "state_dict": named("model.student._orig_mod.module.", "model.teacher._orig_mod.module.")
    },
    "more than is needed": {
        "state_dict": named("model_s.", "model_t.")
        | {"model_s.fc.weight": torch.ones(2), "model_t.layer4.0.conv1.weight": torch.ones(2)}
    },
}
ALONE: dict[str, Any] = {
    "plain": dict(STUDENT),
    "under state_dict": {"state_dict": dict(STUDENT)},
    "under model_state_dict": {"model_state_dict": named("module."), "epoch": 3},
    "with model.": {"state_dict": named("model.")},
}


@pytest.mark.parametrize("kind", FILES)
def test_names_of_ports_and_wrappers(kind: str, tmp_path: Path) -> None:
    adopted = load_checkpoint(saved(tmp_path / "port.pth", FILES[kind]), input_size=SIZE)
    assert adopted.config == ModelConfig(input_size=SIZE)
    for mine, theirs in ((adopted.student, STUDENT), (adopted.teacher, TEACHER)):
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[key], theirs[key]) for key in mine)


@pytest.mark.parametrize("kind", ALONE)
def test_a_student_alone_takes_the_given_teacher(kind: str, tmp_path: Path) -> None:
    torch.save(TEACHER, tmp_path / "teacher.pth")
    path = saved(tmp_path / "student.pth", ALONE[kind])
    adopted = load_checkpoint(path, tmp_path / "teacher.pth", SIZE)
    assert all(torch.equal(adopted.student[key], STUDENT[key]) for key in STUDENT)
    assert all(torch.equal(adopted.teacher[key], TEACHER[key]) for key in TEACHER)


def test_a_size_is_taken_where_the_file_says_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    port = saved(tmp_path / "port.pth", FILES["a port to Lightning"])
    assert load_checkpoint(port).config.input_size == (256, 256)
    assert "assuming 256x256 and ImageNet normalisation" in capsys.readouterr().err
    content = {"state_dict": ANOMALIB, "anomalib_pre_processor_config": description()}
    own = saved(tmp_path / "model.ckpt", content)
    with pytest.raises(CheckpointError, match="48x80 pixels, got --input-size 64x64; leave"):
        load_checkpoint(own, input_size=(64, 64))


class Harmful:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


class Mode(enum.Enum):
    FAST = "fast"


def test_nothing_in_a_file_is_run(tmp_path: Path) -> None:
    mark = tmp_path / "run"
    content = {"state_dict": ANOMALIB, "callbacks": [Harmful(mark), Mode.FAST, {1, 2}]}
    path = saved(tmp_path / "model.ckpt", content)
    assert load_checkpoint(path, input_size=SIZE).config.input_size == SIZE
    found = load_inert(path)
    assert not mark.exists()
    assert all(isinstance(value, Inert) for value in found["callbacks"][:2])
    torch.load(path, weights_only=False)
    assert mark.exists(), "the file would have done it"


@pytest.mark.parametrize("part", ["student", "teacher"])
def test_weights_that_are_not_finite_are_named(part: str, tmp_path: Path) -> None:
    state = named("model_s.", "model_t.")
    key = f"model_{part[0]}.layer2.0.conv1.weight"
    state[key] = state[key].clone()
    state[key][0, 0, 0, 0] = float("nan")
    said = f"the {part}'s layer2.0.conv1.weight contains values that are not finite"
    with pytest.raises(CheckpointError, match=said):
        load_checkpoint(saved(tmp_path / "port.pth", {"state_dict": state}), input_size=SIZE)


def test_a_normalisation_is_three_numbers_each() -> None:
    for wrong in ({"mean": (1.0,)}, {"mean": (1.0,) * 3}, {"mean": (1.0,) * 3, "std": (0.0,) * 3}):
        with pytest.raises(CheckpointError, match="expected three numbers each"):
            replace(ModelConfig(), **wrong).check()  # type: ignore[arg-type]
    plain = Stpm(ModelConfig(), pyramid("resnet18", LEVELS)).normalise
    assert plain.mean.tolist() == pytest.approx([123.675, 116.28, 103.53])  # type: ignore[union-attr,operator]
