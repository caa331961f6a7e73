"""Checkpoints: round trips, atomic writes, refusals, and students adopted from other formats."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from foreign_checkpoints import as_authors
from real_data import REAL_DATA, needs_real_data
from torch import Tensor

from stpm.runtime.errors import CheckpointError
from stpm.runtime.images.preprocess import load_image
from stpm.train.backbones import StateDict, load_teacher, pyramid, state_hash
from stpm.train.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from stpm.train.methods.stpm.network import ModelConfig, Stpm


def random_state(seed: int, levels: tuple[str, ...] = ModelConfig.levels) -> StateDict:
    torch.manual_seed(seed)
    net = pyramid("resnet18", levels)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for tensor in (module.running_mean, module.running_var):
                torch.nn.init.uniform_(tensor, 0.5, 1.5)
    return net.state_dict()


def model_of(config: ModelConfig, teacher: StateDict, student: StateDict) -> Stpm:
    model = Stpm(config, pyramid(config.backbone, config.levels))
    model.teacher.load_state_dict(teacher)
    model.student.load_state_dict(student)
    return model.eval()


@torch.inference_mode()
def map_of(model: Stpm, image: np.ndarray | None = None) -> Tensor:
    if image is None:
        shape = (*model.config.input_size, 3)
        image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    maps: Tensor = model(torch.tensor(image)[None])[0]
    return maps


def assert_same(a: object, b: object) -> None:
    """Nested containers, tensors bit for bit."""
    assert type(a) is type(b)
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        assert a.dtype == b.dtype
        assert torch.equal(a, b)
    elif isinstance(a, dict) and isinstance(b, dict):
        assert a.keys() == b.keys()
        for key, value in a.items():
            assert_same(value, b[key])
    elif isinstance(a, list | tuple) and isinstance(b, list | tuple):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_same(x, y)
    else:
        assert a == b


def refusal(path: Path, teacher_weights: Path | None = None) -> str:
    with pytest.raises(CheckpointError) as error:
        load_checkpoint(path, teacher_weights)
    text = str(error.value)
    assert "\n" not in text
    assert text.endswith(".")
    assert "weights_only" not in text
    return text


@pytest.fixture(scope="module")
def checkpoint(checkpoint_path: Path) -> Checkpoint:
    return load_checkpoint(checkpoint_path)


@pytest.fixture
def small() -> Checkpoint:
    """An untrained one of a few kilobytes."""
    config = ModelConfig("squeezenet1_1", ("layer1",), (32, 32))
    teacher, student = (pyramid(config.backbone, config.levels).state_dict() for _ in range(2))
    identity = {"source": "nowhere", "sha256": state_hash(teacher)}
    return Checkpoint(config, dict(student), dict(teacher), identity)


@pytest.fixture
def content(small: Checkpoint) -> dict[str, Any]:
    """What its file holds, to change."""
    return {"format_version": 1} | vars(small) | {"config": small.config.to_dict()}


def test_round_trip_is_bit_for_bit(checkpoint: Checkpoint, tmp_path: Path) -> None:
    save_checkpoint(checkpoint, tmp_path / "again.pt")
    assert_same(vars(load_checkpoint(tmp_path / "again.pt")), vars(checkpoint))
    assert [p.name for p in tmp_path.iterdir()] == ["again.pt"]


def test_the_file_holds_plain_values(checkpoint_path: Path, teacher_file: Path) -> None:
    content = torch.load(checkpoint_path, weights_only=True)
    assert content["format_version"] == 1
    assert content["config"] == {
        "backbone": "resnet18",
        "levels": ("layer1", "layer2", "layer3"),
        "input_size": (64, 64),
        "method": "stpm",
        "score": "max",
    }
    _, identity = load_teacher("resnet18", ModelConfig.levels, teacher_file)
    assert content["teacher_id"] == identity
    assert content["training"].keys() >= {
        "folder",
        "train",
        "held_out",
        "data_sha256",
        "options",
        "versions",
        "best_epoch",
        "held_out_map",
        "epochs_done",
    }


def test_names_the_held_out_images(checkpoint: Checkpoint, data_root: Path) -> None:
    held_out = checkpoint.held_out_images()
    assert len(held_out) == 3
    assert all(p.is_file() and p.parent == data_root / "weave/train/good" for p in held_out)
    names = {p.name for p in held_out} | set(checkpoint.training["train"])
    assert names == {f"{i:03}.png" for i in range(15)}
    assert replace(checkpoint, training={}).held_out_images() == []


def test_the_model_is_frozen_and_whole(checkpoint: Checkpoint) -> None:
    model = checkpoint.model()
    assert not model.training
    assert not any(p.requires_grad for p in model.parameters())
    expected = model_of(checkpoint.config, checkpoint.teacher, checkpoint.student)
    assert torch.equal(map_of(model), map_of(expected))


@pytest.mark.parametrize("exists", [True, False])
def test_a_failed_write_leaves_the_old_file(
    small: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exists: bool
) -> None:
    path = tmp_path / "weave.pt"
    if exists:
        path.write_bytes(b"old")

    def fill_the_disk(_: object, file: Any) -> None:
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", fill_the_disk)
    with pytest.raises(OSError, match="disk full"):
        save_checkpoint(small, path)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == (
        {"weave.pt": b"old"} if exists else {}
    )


def test_a_write_replaces_the_old_file(small: Checkpoint, tmp_path: Path) -> None:
    path = tmp_path / "weave.pt"
    path.write_bytes(b"old")
    save_checkpoint(small, path)
    assert load_checkpoint(path).teacher_id == small.teacher_id


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.999])
def test_refuses_truncated_files(small: Checkpoint, tmp_path: Path, share: float) -> None:
    path = tmp_path / "weave.pt"
    save_checkpoint(small, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    assert refusal(path).startswith(f"{path}: not a readable checkpoint (")


@pytest.mark.parametrize("garbage", [b"not a checkpoint\n" * 9, bytes(100), b"PK\x03\x04" * 30])
def test_refuses_garbage(tmp_path: Path, garbage: bytes) -> None:
    (tmp_path / "weave.pt").write_bytes(garbage)
    assert "not a readable checkpoint" in refusal(tmp_path / "weave.pt")


def test_refuses_an_absent_file(tmp_path: Path) -> None:
    assert "there is no such checkpoint" in refusal(tmp_path / "weave.pt")


def test_refuses_a_bundle(tmp_path: Path) -> None:
    (tmp_path / "weave.stpm").mkdir()
    assert "is a folder, expected a file of stpm-train" in refusal(tmp_path / "weave.stpm")


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Callable[..., None], tuple[Path]]:
        return Path.mkdir, (self.folder,)


@pytest.mark.parametrize("archive", [True, False])
def test_code_in_a_checkpoint_never_runs(
    tmp_path: Path, content: dict[str, Any], archive: bool
) -> None:
    path, sprung = tmp_path / "weave.pt", tmp_path / "sprung"
    content["training"] = Trap(sprung)
    torch.save(content, path, _use_new_zipfile_serialization=archive)
    assert "not a readable checkpoint" in refusal(path)
    assert not sprung.exists()
    pickle.loads(pickle.dumps(content["training"]))
    assert sprung.exists()


@pytest.mark.parametrize("version", [0, 2, "1", None])
def test_refuses_other_format_versions(
    tmp_path: Path, content: dict[str, Any], version: object
) -> None:
    torch.save(content | {"format_version": version}, tmp_path / "weave.pt")
    assert f"got checkpoint format {version}, expected 1" in refusal(tmp_path / "weave.pt")


def test_refuses_an_altered_teacher(tmp_path: Path, content: dict[str, Any]) -> None:
    content["teacher"]["4.squeeze.bias"][7] += 1e-6
    torch.save(content, tmp_path / "weave.pt")
    text = refusal(tmp_path / "weave.pt")
    assert "the teacher's weights differ from their hash" in text


@pytest.mark.parametrize(
    "change",
    [
        {"config": None},
        {"config": {}},
        {"config": {"backbone": "resnet18", "levels": 3, "input_size": (64, 64), "method": "stpm"}},
        {"teacher": None},
        {"teacher": {"conv1.weight": 3}},
        {"teacher_id": None},
        {"teacher_id": {}},
        {"surprise": 1},
    ],
    ids=str,
)
def test_refuses_malformed_contents(
    tmp_path: Path, content: dict[str, Any], change: dict[str, Any]
) -> None:
    torch.save(content | change, tmp_path / "weave.pt")
    assert "malformed checkpoint" in refusal(tmp_path / "weave.pt")


@pytest.mark.parametrize("part", ["student", "teacher", "teacher_id", "config"])
def test_refuses_incomplete_contents(tmp_path: Path, content: dict[str, Any], part: str) -> None:
    del content[part]
    torch.save(content, tmp_path / "weave.pt")
    assert part in refusal(tmp_path / "weave.pt")


@pytest.mark.parametrize(
    ("foreign", "said"),
    [
        ([1, 2], "neither a format_version nor a state_dict"),
        ({"weights": torch.zeros(1)}, "first key: weights"),
        ({"state_dict": {}}, "neither a format_version nor a state_dict"),
        ({"state_dict": {"fc.weight": torch.zeros(1)}}, "first key: fc.weight"),
        ({"state_dict": {"model.0.weight": 3}}, "neither a format_version nor"),
        ({"state_dict": {3: torch.zeros(1)}}, "neither a format_version nor"),
    ],
    ids=str,
)
def test_refuses_other_models(tmp_path: Path, foreign: object, said: str) -> None:
    torch.save(foreign, tmp_path / "other.pt")
    assert said in refusal(tmp_path / "other.pt")


def test_a_student_that_does_not_fit_is_refused(small: Checkpoint) -> None:
    with pytest.raises(CheckpointError, match="the checkpoint's student: lacks 14 of 14 tensors"):
        replace(small, student={}).model()


def assert_same_maps(adopted: Checkpoint, teacher: StateDict, student: StateDict) -> None:
    config = replace(adopted.config, input_size=(64, 64))
    expected = model_of(config, teacher, student)
    assert torch.equal(map_of(replace(adopted, config=config).model()), map_of(expected))


def as_anomalib(teacher: StateDict, student: StateDict) -> StateDict:
    return {
        f"model.{name}_model.feature_extractor.{key}": value
        for name, state in (("teacher", teacher), ("student", student))
        for key, value in state.items()
    } | {"post_processor._image_threshold": torch.tensor(0.5)}


def test_adopts_a_student_of_the_authors(teacher_file: Path, tmp_path: Path) -> None:
    student, path = random_state(1), tmp_path / "best.pth.tar"
    torch.save({"category": "weave", "state_dict": as_authors(student)}, path)
    adopted = load_checkpoint(path, teacher_file)
    teacher, identity = load_teacher("resnet18", ModelConfig.levels, teacher_file)
    assert adopted.config == ModelConfig()
    assert adopted.teacher_id == identity
    assert (adopted.training, adopted.resume, adopted.held_out_images()) == ({}, {}, [])
    assert_same_maps(adopted, teacher.state_dict(), student)


@pytest.mark.parametrize(
    ("hyper_parameters", "levels"),
    [
        ({"backbone": "resnet18", "layers": ["layer1", "layer2"]}, ("layer1", "layer2")),
        (None, ModelConfig.levels),
    ],
)
def test_adopts_a_student_of_anomalib(
    tmp_path: Path, hyper_parameters: dict[str, Any] | None, levels: tuple[str, ...]
) -> None:
    teacher, student = random_state(1, levels), random_state(2, levels)
    path = tmp_path / "model.ckpt"
    content = {"state_dict": as_anomalib(teacher, student), "epoch": 9}
    if hyper_parameters is not None:
        content["hyper_parameters"] = hyper_parameters
    torch.save(content, path)
    adopted = load_checkpoint(path)
    assert adopted.config == ModelConfig(levels=levels)
    assert adopted.teacher_id == {"source": "model.ckpt", "sha256": state_hash(teacher)}
    assert_same_maps(adopted, teacher, student)


def test_an_adopted_student_is_saved_in_our_format(tmp_path: Path) -> None:
    path = tmp_path / "model.ckpt"
    torch.save({"state_dict": as_anomalib(random_state(1), random_state(2))}, path)
    adopted = load_checkpoint(path)
    save_checkpoint(adopted, tmp_path / "ours.pt")
    assert_same(vars(load_checkpoint(tmp_path / "ours.pt")), vars(adopted))


@pytest.mark.parametrize("name", ["best.pth.tar", "model.ckpt"])
def test_refuses_to_adopt_half_a_student(teacher_file: Path, tmp_path: Path, name: str) -> None:
    student = random_state(1)
    del student["layer2.0.bn1.weight"]
    authors, anomalib = as_authors(student), as_anomalib(random_state(1), student)
    torch.save({"state_dict": authors if name == "best.pth.tar" else anomalib}, tmp_path / name)
    text = refusal(tmp_path / name, teacher_file)
    assert f"{name} (student): lacks 1 of 75 tensors (first: layer2.0.bn1.weight)" in text


@needs_real_data
def test_the_same_real_student_in_both_formats_gives_one_map() -> None:
    weights = REAL_DATA / "weights/resnet18_imagenet_layer3.safetensors"
    authors = load_checkpoint(REAL_DATA / "checkpoints/bottle_authors.pth.tar", weights)
    anomalib = load_checkpoint(REAL_DATA / "checkpoints/bottle_anomalib.ckpt")
    assert_same(authors.student, anomalib.student)
    assert authors.teacher_id["sha256"] == anomalib.teacher_id["sha256"]
    category = REAL_DATA / "data/mvtec/bottle/test"
    good, broken = (load_image(category / kind / "000.png") for kind in ("good", "broken_large"))
    anomaly_map = map_of(authors.model(), broken)
    assert torch.equal(anomaly_map, map_of(anomalib.model(), broken))
    assert anomaly_map.max() > 2 * map_of(authors.model(), good).max()
