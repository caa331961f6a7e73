"""What a run leaves on disk, and that going on from it gives the bits of an uninterrupted run."""

from __future__ import annotations

import shutil
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from fit_runs import OPTIONS, assert_same_runs, assert_same_states, begin, epochs, outcomes

from stpm.runtime.errors import CheckpointError
from stpm.train import pipeline, run_files
from stpm.train.checkpoint import load_checkpoint
from stpm.train.methods.stpm.trainer import StpmTrainer


@pytest.fixture
def rarely_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """After the first epoch and at the end, as where epochs are short."""
    monkeypatch.setattr(run_files, "WRITE_EVERY_S", float("inf"))


def assert_same_outcome(out: Path, expected: Path) -> None:
    assert_same_runs(load_checkpoint(out), load_checkpoint(expected))
    assert outcomes(run_files.log_path(out)) == outcomes(run_files.log_path(expected))


def test_the_same_seed_gives_the_same_bits(
    data_root: Path, teacher_file: Path, tmp_path: Path, uninterrupted: Path
) -> None:
    out = tmp_path / "again.pt"
    torch.manual_seed(99)  # the caller's random state does not count
    list(epochs(data_root, teacher_file, out))
    assert_same_runs(load_checkpoint(out), load_checkpoint(uninterrupted))
    logs = [outcomes(run_files.log_path(path)) for path in (out, uninterrupted)]
    assert logs[0] == logs[1]


def test_a_resumed_run_gives_the_bits_of_an_uninterrupted_one(
    data_root: Path, teacher_file: Path, tmp_path: Path, uninterrupted: Path
) -> None:
    out = tmp_path / "weave.pt"
    with closing(epochs(data_root, teacher_file, out)) as run:
        next(run)
    assert load_checkpoint(out).training["epochs_done"] == 1
    assert [r.epoch for r in epochs(data_root, teacher_file, out, resume=True)] == [2, 3]
    assert_same_runs(load_checkpoint(out), load_checkpoint(uninterrupted))
    logs = [outcomes(run_files.log_path(path)) for path in (out, uninterrupted)]
    assert logs[0] == logs[1]


def test_a_resumed_run_remembers_its_best_student(
    data_root: Path, teacher_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "weave.pt"
    with closing(epochs(data_root, teacher_file, out)) as run:
        next(run)
    best = load_checkpoint(out).student
    monkeypatch.setattr(StpmTrainer, "_mean_held_out_map", lambda _: 9.0)
    list(epochs(data_root, teacher_file, out, resume=True))
    after = load_checkpoint(out)
    assert (after.training["best_epoch"], after.training["epochs_done"]) == (1, 3)
    assert_same_states(after.student, best)
    assert not torch.equal(after.resume["student"]["conv1.weight"], best["conv1.weight"])


def test_a_finished_run_has_nothing_to_resume(
    data_root: Path, teacher_file: Path, uninterrupted: Path
) -> None:
    before = uninterrupted.read_bytes()
    assert list(epochs(data_root, teacher_file, uninterrupted, resume=True)) == []
    assert uninterrupted.read_bytes() == before


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("batch_size", 4),
        ("learning_rate", 0.2),
        ("momentum", 0.8),
        ("weight_decay", 0.0),
        ("seed", 1),
        ("held_out", 0.3),
    ],
)
def test_a_resumed_run_keeps_its_options(
    data_root: Path, teacher_file: Path, uninterrupted: Path, name: str, value: float
) -> None:
    options = replace(OPTIONS, **{name: value})
    with pytest.raises(CheckpointError, match=f"was trained with {name} .*, got {value}; repeat"):
        next(epochs(data_root, teacher_file, uninterrupted, options, resume=True))


@pytest.mark.usefixtures("rarely_written")
def test_closing_writes_the_epochs_since_the_last_time(
    data_root: Path, teacher_file: Path, tmp_path: Path, uninterrupted: Path
) -> None:
    out = tmp_path / "weave.pt"
    with closing(epochs(data_root, teacher_file, out)) as run:
        assert [next(run).epoch for _ in range(2)] == [1, 2]
        assert load_checkpoint(out).training["epochs_done"] == 1
    assert load_checkpoint(out).training["epochs_done"] == 2
    assert [line[0] for line in outcomes(run_files.log_path(out))] == [1, 2]
    list(epochs(data_root, teacher_file, out, resume=True))
    assert_same_outcome(out, uninterrupted)


@pytest.mark.usefixtures("rarely_written")
def test_an_interruption_within_an_epoch_leaves_the_epoch_before(
    data_root: Path, teacher_file: Path, tmp_path: Path, uninterrupted: Path
) -> None:
    """Not the weights as they are in the middle of the next one."""
    out, seen = tmp_path / "weave.pt", []
    fit, blank = begin(data_root, teacher_file)

    def interrupt(images: int) -> None:
        seen.append(images)
        if sum(seen) > 2 * 12 + 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(pipeline.train(fit, blank, out, interrupt))
    assert fit.written_epoch == load_checkpoint(out).training["epochs_done"] == 2
    list(epochs(data_root, teacher_file, out, resume=True))
    assert_same_outcome(out, uninterrupted)


@pytest.mark.usefixtures("rarely_written")
def test_a_killed_run_goes_on_from_its_checkpoint(
    data_root: Path, teacher_file: Path, tmp_path: Path, uninterrupted: Path
) -> None:
    """The log says what the checkpoint knows, also where it was written before or after it."""
    out = tmp_path / "weave.pt"
    with closing(epochs(data_root, teacher_file, out)) as run:
        next(run)
        first = (out.read_bytes(), run_files.log_path(out).read_text())
        next(run)
    later = run_files.log_path(out).read_text()
    for log in (first[1], later, "", later[:-20]):
        out.write_bytes(first[0])
        run_files.log_path(out).write_text(log)
        resumed = [r.epoch for r in epochs(data_root, teacher_file, out, resume=True)]
        assert resumed == [2, 3]
        assert_same_outcome(out, uninterrupted)


def test_a_run_that_has_not_finished_an_epoch_changes_nothing(
    data_root: Path, teacher_file: Path, tmp_path: Path, uninterrupted: Path
) -> None:
    out = Path(shutil.copy(uninterrupted, tmp_path / "weave.pt"))
    log = Path(shutil.copy(run_files.log_path(uninterrupted), run_files.log_path(out)))
    before = out.read_bytes(), log.read_bytes()
    fit, blank = begin(data_root, teacher_file)

    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(pipeline.train(fit, blank, out, interrupt))
    assert (out.read_bytes(), log.read_bytes()) == before
