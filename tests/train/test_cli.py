"""stpm-train: its flags, what it refuses, and its log."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from train_cli import log_of, refuse, refuse_usage, run, succeed
from typer.testing import Result

from stpm.runtime.errors import CheckpointError
from stpm.train.checkpoint import load_checkpoint
from stpm.train.methods import METHODS, open_method, recipe_of

FLAGS = {
    "--method",
    "--set",
    "--teacher-images",
    "--teacher-folder",
    "--data",
    "--category",
    "--good",
    "--out",
    "--backbone",
    "--levels",
    "--share-to",
    "--input-size",
    "--tile",
    "--teacher-weights",
    "--epochs",
    "--batch-size",
    "--learning-rate",
    "--cooldown",
    "--recipe",
    "--augment",
    "--from",
    "--held-out",
    "--train-share",
    "--every",
    "--seed",
    "--bit-depth",
    "--cache-gb",
    "--install-completion",
    "--show-completion",
    "--version",
    "--device",
    "--precision",
    "--compile",
    "--no-compile",
    "--skip-bad",
    "--resume",
    "--overwrite",
    "--help",
}


def test_help_lists_every_flag_and_its_default() -> None:
    result = run("--help")
    assert result.exit_code == 0
    plain = " ".join(re.sub(r"\x1b\[[\d;]*m|│", "", result.stdout).split())
    assert set(re.findall(r"(?<= )--[a-z-]+", plain)) == FLAGS
    for default in ("CATEGORY.pt", "resnet18", "layer1,layer2,layer3", "256", "fast"):
        assert re.search(rf"\[default: \(?{re.escape(default)}[)\]]", plain), default


def test_recipes() -> None:
    """The paper's is the authors' code; a method without a fast one takes the paper's."""
    paper = recipe_of("stpm", "paper")
    assert (paper.epochs, paper.batch_size, paper.learning_rate) == (200, 32, 0.4)
    assert (paper.momentum, paper.weight_decay, paper.cooldown) == (0.9, 1e-4, 0.0)
    assert recipe_of("stpm", None) == recipe_of("stpm", "fast") != paper
    assert recipe_of("spade", None) == recipe_of("spade", "paper")
    with pytest.raises(CheckpointError, match="got the recipe 'fast', expected paper for stad"):
        recipe_of("stad", "fast")


def test_trains_on_a_folder_of_good_images(finished: tuple[Path, Result], data_root: Path) -> None:
    (out, result), good = finished, data_root / "weave/train/good"
    assert result.stdout == f"{out}\n"
    assert sorted(p.name for p in out.parent.iterdir()) == ["part.log.jsonl", "part.pt"]
    checkpoint = load_checkpoint(out)
    assert checkpoint.config.input_size == (32, 32)
    assert checkpoint.training["folder"] == str(good)
    assert checkpoint.training["options"]["epochs"] == checkpoint.training["epochs_done"] == 3
    assert f"{good}: 12 images to train, 3 held out" in result.stderr
    assert "epoch 3/3: loss" in result.stderr


def test_every_flag_reaches_the_checkpoint(
    good: Path, flags: list[str], tmp_path: Path, teacher_file: Path
) -> None:
    more = {
        "--input-size": "32x48",
        "--levels": "layer3,layer1",
        "--share-to": "conv1",
        "--epochs": 1,
        "--batch-size": 4,
        "--learning-rate": 0.05,
        "--cooldown": 0.5,
        "--held-out": 0.4,
        "--train-share": 0.8,
        "--every": 1,
        "--seed": 3,
        "--cache-gb": 0.001,
        "--bit-depth": 12,
    }
    succeed("--good", good, *flags, *(x for pair in more.items() for x in pair))
    checkpoint = load_checkpoint(tmp_path / "part.pt")
    assert checkpoint.config.to_dict() == {
        "backbone": "resnet18",
        "levels": ("layer3", "layer1"),
        "input_size": (32, 48),
        "method": "stpm",
        "score": "max",
        "share_to": "conv1",
    }
    assert checkpoint.training["options"] == {
        "epochs": 1,
        "batch_size": 4,
        "learning_rate": 0.05,
        "momentum": 0.9,
        "weight_decay": 1e-4,
        "cooldown": 0.5,
        "held_out": 0.4,
        "train_share": 0.8,
        "seed": 3,
        "hard_positions": False,
        "augment": False,
        "tile": 0,
        "cache_gb": 0.001,
        "bit_depth": 12,
        "device": "cpu",
        "precision": "fp32",
        "compile": False,
    }
    assert checkpoint.teacher_id["source"] == teacher_file.name
    assert len(checkpoint.training["held_out"]) == 5  # of 12


@pytest.mark.parametrize("layout", [True, False])
def test_the_checkpoint_is_named_after_the_images(
    data_root: Path,
    good: Path,
    flags: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    layout: bool,
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    source = ["--data", data_root, "--category", "weave"] if layout else ["--good", good]
    name = "weave" if layout else "parts"
    assert succeed(*source, *flags[2:], "--epochs", 1).stdout == f"{name}.pt\n"
    assert sorted(p.name for p in Path().iterdir()) == [f"{name}.log.jsonl", f"{name}.pt"]


def test_a_link_gives_its_own_name(
    good: Path, flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    Path("bottle").symlink_to(good)
    assert succeed("--good", "bottle", *flags[2:], "--epochs", 1).stdout == "bottle.pt\n"


def test_the_log_has_a_line_an_epoch(finished: tuple[Path, Result]) -> None:
    lines, training = log_of(finished[0]), load_checkpoint(finished[0]).training
    assert [line["epoch"] for line in lines] == [1, 2, 3]
    for line in lines:
        assert line.keys() == {
            "epoch",
            "loss",
            "held_out",
            "is_best",
            "seconds",
            "seconds_by_stage",
        }
        stages = line["seconds_by_stage"]
        assert stages.keys() == {
            *("teacher", "forward", "backward", "optimiser", "wait", "held_out"),
        }
        assert 0 < sum(stages.values()) <= line["seconds"]
    best = min(lines, key=lambda line: line["held_out"])
    assert (training["best_epoch"], training["held_out_map"]) == (best["epoch"], best["held_out"])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "give either --good DIR, or --data ROOT with --category NAME."),
        (("--data", "d"), "give either --good"),
        (("--category", "c"), "give either --good"),
        (("--good", "g", "--data", "d", "--category", "c"), "give either --good"),
        (("--good", "g", "--category", "c"), "give either --good"),
        (("--good", "g", "--resume", "--overwrite"), "exclude each other"),
        (("--good", "g", "--input-size", "big"), "expected HxW such as 1024x768"),
        (("--good", "g", "--input-size", "0x64"), "expected HxW such as 1024x768"),
        (("--good", "g", "--epochs", "0"), "'--epochs'"),
        (("--good", "g", "--batch-size", "0"), "'--batch-size'"),
        (("--good", "g", "--learning-rate", "-0.1"), "'--learning-rate'"),
        (("--good", "g", "--held-out", "1"), "'--held-out'"),
        (("--good", "g", "--train-share", "0"), "'--train-share'"),
        (("--good", "g", "--train-share", "1.1"), "'--train-share'"),
        (("--good", "g", "--every", "0"), "'--every'"),
        (("--good", "g", "--seed", "-1"), "'--seed'"),
        (("--good", "g", "--cache-gb", "-1"), "'--cache-gb'"),
        (("--good", "g", "--device", "tpu"), "'auto', 'cpu', 'cuda'"),
        (("--good", "g", "--precision", "int8"), "'auto', 'fp32', 'bf16', 'fp16'"),
        (("--good", "g", "--colour"), "--colour"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_conflicts_and_bad_values_are_usage_errors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert said in refuse_usage(*arguments)
    assert not list(tmp_path.iterdir())


def test_an_existing_checkpoint_is_replaced_only_when_asked(
    good: Path, flags: list[str], tmp_path: Path
) -> None:
    out, log = tmp_path / "part.pt", tmp_path / "part.log.jsonl"
    out.write_bytes(b"precious")
    log.write_bytes(b"too")
    assert f"{out}: already exists" in refuse("--good", good, *flags)
    assert (out.read_bytes(), log.read_bytes()) == (b"precious", b"too")
    succeed("--good", good, *flags, "--overwrite")
    assert load_checkpoint(out).training["epochs_done"] == len(log_of(out)) == 2


@pytest.mark.parametrize("overwrite", [[], ["--overwrite"]])
def test_refuses_places_where_no_checkpoint_can_stand(
    good: Path, flags: list[str], tmp_path: Path, overwrite: list[str]
) -> None:
    assert "is a folder" in refuse("--good", good, *flags, "--out", good, *overwrite)
    absent = tmp_path / "absent"
    text = refuse("--good", good, *flags, "--out", absent / "part.pt", *overwrite)
    assert f"{absent}: there is no such folder" in text


def remove_images(good: Path) -> None:
    for path in good.iterdir():
        path.unlink()


def keep_one_image(good: Path) -> None:
    for path in sorted(good.iterdir())[1:]:
        path.unlink()


def remove_folder(good: Path) -> None:
    shutil.rmtree(good)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (remove_images, "parts: contains no images"),
        (keep_one_image, "got 1 good image, expected at least 2"),
        (remove_folder, "parts: there is no such folder"),
    ],
)
def test_refuses_too_few_images(
    good: Path, flags: list[str], tmp_path: Path, change: Callable[[Path], None], said: str
) -> None:
    change(good)
    assert said in refuse("--good", good, *flags)
    assert not (tmp_path / "part.pt").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--backbone", "resnet19"), "got backbone 'resnet19', expected one of resnet18, "),
        (("--backbone", "resnet50"), "teacher.safetensors: lacks "),
        (("--levels", "layer1,layer9"), "got levels 'layer1,layer9'"),
        (("--levels", ""), "got levels ''"),
        (("--teacher-weights", "absent.pth"), "absent.pth: there is no such file"),
        (("--learning-rate", "1e30"), "expected a finite number; lower --learning-rate"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_refuses_what_cannot_be_trained(
    good: Path, flags: list[str], tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    assert said in refuse("--good", good, *flags, *arguments)
    assert not (tmp_path / "part.pt").exists()


def test_an_absent_gpu_is_refused(
    good: Path, flags: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "use --device cpu" in refuse("--good", good, *flags, "--device", "cuda")


def test_a_corrupt_image_stops_the_run_or_is_left_out(
    good: Path, flags: list[str], tmp_path: Path
) -> None:
    (good / "004.png").write_bytes(b"no image")
    text = refuse("--good", good, *flags)
    assert str(good / "004.png") in text
    assert "--skip-bad" in text
    result = succeed("--good", good, *flags, "--skip-bad")
    assert f"left out: {good / '004.png'}: " in result.stderr
    training = load_checkpoint(tmp_path / "part.pt").training
    assert {*training["train"], *training["held_out"]} == {
        f"{i:03}.png" for i in range(15) if i != 4
    }


def test_sizes_beyond_what_a_bundle_may_hold(good: Path, flags: list[str]) -> None:
    assert "expected up to 16384" in refuse_usage("--good", good, *flags, "--input-size", 1000000)


def test_a_last_batch_of_one_with_features_of_one_pixel(good: Path, flags: list[str]) -> None:
    arguments = ("--good", good, *flags, "--levels", "layer1,layer2,layer3", "--input-size", 16)
    said = refuse(*arguments, "--batch-size", 1)
    assert "a batch of one image" in said
    assert "choose another --batch-size" in said


@pytest.mark.parametrize(
    ("method", "given"),
    [
        ("stpm", ("--teacher-images", "photos")),
        ("stpm", ("--teacher-folder", "teachers")),
        ("stad", ("--compile",)),
        ("stad", ("--cache-gb", "4.0")),  # the default, but given
        ("spade", ("--learning-rate", "0.1")),
        ("spade", ("--no-compile",)),
        ("spade", ("--precision", "fp32")),
        ("rd", ("--share-to", "layer1")),  # its student always starts from the teacher's features
    ],
)
def test_an_option_that_the_method_does_not_use_is_refused(
    method: str, given: tuple[str, ...], good: Path, tmp_path: Path
) -> None:
    out = tmp_path / "part.pt"
    text = refuse_usage("--good", good, "--method", method, "--out", out, *given)
    flag = given[0].replace("--no-", "--")
    assert f"got {flag}, which --method {method} does not use; leave it out." in text
    assert not out.exists()


def test_every_option_that_a_method_ignores_exists() -> None:
    for name in METHODS:
        assert open_method(name).ignores < FLAGS


def test_tiles_that_cannot_be_trained_on(good: Path) -> None:
    given = ("--good", good, "--tile")
    for arguments in ((100,), (64, "--input-size", 64)):
        said = refuse_usage(*given, *arguments)
        assert f"got --tile {arguments[0]}, expected a multiple of 32" in said
    for method in ("rd", "stad", "spade"):
        assert "got --tile, which" in refuse_usage(*given, 64, "--method", method)
