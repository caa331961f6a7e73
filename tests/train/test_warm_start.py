"""stpm-train --from: training on from another product's student."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from train_cli import log_of, refuse, refuse_usage, succeed
from typer.testing import Result

from stpm.train.backbones import state_hash
from stpm.train.checkpoint import load_checkpoint


def without(flags: list[str], name: str) -> list[str]:
    place = flags.index(name)
    return flags[:place] + flags[place + 2 :]


def test_training_begins_where_the_other_ended(
    good: Path, flags: list[str], finished: tuple[Path, Result], tmp_path: Path
) -> None:
    """With a rate of zero only batch norm's statistics move; the teacher comes along."""
    other = load_checkpoint(finished[0])
    still = ["--learning-rate", "0", "--epochs", "1"]
    succeed("--good", good, *without(flags, "--teacher-weights"), *still, "--from", finished[0])
    checkpoint = load_checkpoint(tmp_path / "part.pt")
    assert checkpoint.teacher_id == other.teacher_id
    assert checkpoint.training["warm_start"] == state_hash(other.student)
    weight = "layer1.0.conv1.weight"
    assert torch.equal(checkpoint.student[weight], other.student[weight])


def test_it_learns_sooner(
    good: Path, flags: list[str], finished: tuple[Path, Result], tmp_path: Path
) -> None:
    warm, cold = tmp_path / "warm.pt", tmp_path / "cold.pt"
    succeed("--good", good, *flags, "--out", warm, "--from", finished[0])
    succeed("--good", good, *flags, "--out", cold)
    assert log_of(warm)[0]["loss"] < log_of(cold)[0]["loss"]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (("--levels", "layer1"), "the levels ('layer1', 'layer2', 'layer3'), got ('layer1',)"),
        (("--method", "rd", "--input-size", "64"), "got rd, expected the same"),
    ],
)
def test_another_architecture_is_refused(
    good: Path,
    flags: list[str],
    finished: tuple[Path, Result],
    changed: tuple[str, ...],
    said: str,
) -> None:
    assert said in refuse("--good", good, *flags, *changed, "--from", finished[0])


def test_it_is_no_resumption(good: Path, flags: list[str], finished: tuple[Path, Result]) -> None:
    out = finished[0]
    arguments = ("--good", good, *flags, "--out", out, "--resume", "--from", out)
    assert "--resume and --from exclude each other" in refuse_usage(*arguments)
