"""stpm-train: --resume, and an interruption by SIGINT or SIGTERM."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image
from train_cli import log_of, refuse, run, succeed
from typer.testing import Result

from stpm.train import run_files
from stpm.train.checkpoint import Checkpoint, load_checkpoint
from stpm.train.epochs import EpochRecord
from stpm.train.methods.stpm.trainer import StpmTrainer

COMMAND = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
from stpm.train.cli import main
main()
"""


def assert_same_students(a: Path, b: Path) -> None:
    first, second = load_checkpoint(a), load_checkpoint(b)
    for mine, other in (
        (first.student, second.student),
        (first.resume["student"], second.resume["student"]),
    ):
        assert mine.keys() == other.keys()
        assert all(torch.equal(mine[key], other[key]) for key in mine)
    assert first.training["epochs_done"] == second.training["epochs_done"]


def test_resume_refuses_another_run(
    good: Path, flags: list[str], tmp_path: Path, finished: tuple[Path, Result]
) -> None:
    out = tmp_path / "part.pt"
    assert f"{out}: nothing to resume" in refuse("--good", good, *flags, "--resume")
    shutil.copy(finished[0], out)
    before = out.read_bytes()
    for changed, said in (
        (("--batch-size", "4"), "was trained with batch_size 5, got 4"),
        (("--seed", "1"), "was trained with seed 0, got 1"),
        (("--input-size", "64"), "was trained as "),
        (("--levels", "layer1"), "was trained as "),
    ):
        assert said in refuse("--good", good, *flags, "--resume", *changed)
    with Image.open(good / "003.png") as image:
        image.point(lambda value: value ^ 1).save(good / "003.png")
    assert "was trained on other images" in refuse("--good", good, *flags, "--resume")
    assert out.read_bytes() == before


def test_resume_refuses_other_files(
    good: Path, flags: list[str], tmp_path: Path, finished: tuple[Path, Result]
) -> None:
    out = tmp_path / "part.pt"
    out.write_bytes(b"no checkpoint")
    assert f"{out}: not a readable checkpoint" in refuse("--good", good, *flags, "--resume")
    torch.save(torch.load(finished[0], weights_only=True) | {"resume": {}}, out)
    assert "it cannot be resumed" in refuse("--good", good, *flags, "--resume")


def test_an_interruption_says_what_stands_on_disk(
    good: Path, flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An epoch counts once its checkpoint is written."""
    save, saved = run_files.save_checkpoint, []

    def interrupt(*arguments: object) -> None:
        if len(saved) == allowed:
            raise KeyboardInterrupt
        saved.append(arguments)
        save(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(run_files, "save_checkpoint", interrupt)
    for allowed, said in ((0, "nothing is written yet"), (1, "part.pt is usable")):
        result = run("--good", good, *flags, "--overwrite")
        assert result.exit_code == 130
        assert f"interrupted after epoch {allowed}; " in result.stderr
        assert said in result.stderr
        assert (tmp_path / "part.pt").exists() == bool(allowed)


def test_an_interruption_right_after_the_checkpoint_knows_of_it(
    good: Path, flags: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_: object) -> Path:
        raise KeyboardInterrupt

    monkeypatch.setattr(run_files, "log_path", interrupt)
    result = run("--good", good, *flags, "--overwrite")
    assert result.exit_code == 130
    assert "interrupted after epoch 1; " in result.stderr
    assert "part.pt is usable" in result.stderr


@pytest.fixture
def process(good: Path, flags: list[str]) -> Iterator[subprocess.Popen[str]]:
    """A long run of its own."""
    arguments = ["--good", str(good), *flags, "--epochs", "100000"]
    with subprocess.Popen(
        [sys.executable, "-c", COMMAND, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # As many threads as here, for the same bits.
        env=os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())},
    ) as started:
        yield started
        started.kill()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no signals between processes")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_a_checkpoint_that_resumes(
    process: subprocess.Popen[str], good: Path, flags: list[str], tmp_path: Path, number: int
) -> None:
    out, log = tmp_path / "part.pt", tmp_path / "part.log.jsonl"
    deadline = time.monotonic() + 120
    while not log.exists():
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=60)
    done = load_checkpoint(out).training["epochs_done"]
    assert process.returncode == 128 + number
    assert f"interrupted after epoch {done}; " in stderr
    assert stdout == ""
    assert f"{out} is usable, continue it with --resume" in stderr
    assert "Traceback" not in stderr
    assert not list(tmp_path.glob(".*"))
    total = ["--epochs", done + 1]
    assert succeed("--good", good, *flags, *total, "--resume").stdout == f"{out}\n"
    assert [line["epoch"] for line in log_of(out)] == list(range(1, done + 2))
    succeed("--good", good, *flags, *total, "--out", tmp_path / "whole.pt")
    assert_same_students(out, tmp_path / "whole.pt")


def test_a_killed_run_goes_on_where_its_checkpoint_stands(
    good: Path, flags: list[str], tmp_path: Path
) -> None:
    """The log may be epochs ahead of a checkpoint that is written every few seconds.

    At a constant rate: one that falls is another after the same epochs of a longer run.
    """
    out = tmp_path / "part.pt"
    flags = [*flags, "--cooldown", "0"]
    succeed("--good", good, *flags, "--epochs", 1)
    first = out.read_bytes()
    succeed("--good", good, *flags, "--epochs", 4, "--resume")
    whole = tmp_path / "whole.pt"
    shutil.copy(out, whole)
    out.write_bytes(first)
    assert [line["epoch"] for line in log_of(out)] == [1, 2, 3, 4]
    succeed("--good", good, *flags, "--epochs", 3, "--resume")
    assert [line["epoch"] for line in log_of(out)] == [1, 2, 3]
    succeed("--good", good, *flags, "--epochs", 4, "--resume")
    assert_same_students(out, whole)


def test_fast_epochs_are_not_each_written(
    good: Path, flags: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    save, epochs = run_files.save_checkpoint, []

    def counted(checkpoint: Checkpoint, path: Path) -> None:
        epochs.append(checkpoint.training["epochs_done"])
        save(checkpoint, path)

    monkeypatch.setattr(run_files, "save_checkpoint", counted)
    monkeypatch.setattr(run_files, "WRITE_EVERY_S", 1000.0)
    succeed("--good", good, *flags, "--epochs", 5)
    assert epochs == [1, 5]


def test_an_interruption_writes_the_last_whole_epoch(
    good: Path, flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_files, "WRITE_EVERY_S", 1000.0)
    run_epoch = StpmTrainer.run_epoch

    def interrupted_in_the_fourth(fit: StpmTrainer, on_step: Callable[[int], None]) -> EpochRecord:
        def stop(images: int) -> None:
            on_step(images)
            if fit.epoch == 3:
                raise KeyboardInterrupt

        return run_epoch(fit, stop)

    monkeypatch.setattr(StpmTrainer, "run_epoch", interrupted_in_the_fourth)
    result = run("--good", good, *flags, "--epochs", 6)
    assert result.exit_code == 130
    assert "interrupted after epoch 3; " in result.stderr
    monkeypatch.setattr(StpmTrainer, "run_epoch", run_epoch)
    succeed("--good", good, *flags, "--epochs", 6, "--resume")
    succeed("--good", good, *flags, "--epochs", 6, "--out", tmp_path / "whole.pt")
    assert_same_students(tmp_path / "part.pt", tmp_path / "whole.pt")


def test_what_a_killed_run_left_is_removed(good: Path, flags: list[str], tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as dead:
        dead.wait()
    left = tmp_path / f".part.pt.{dead.pid}.partial"
    left.touch()
    succeed("--good", good, *flags)
    assert not left.exists()
