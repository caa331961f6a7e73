"""Replayed steps: those of a GPU, and on every machine what surrounds a GPU's graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from fit_runs import OPTIONS, assert_same_runs, assert_same_states, epochs, start
from torch import Tensor

from stpm.runtime.backends.gpu import gpu_count
from stpm.train.checkpoint import load_checkpoint
from stpm.train.methods.stpm.trainer import StpmTrainer
from stpm.train.options import FitOptions
from stpm.train.replay import WARM_UP_RUNS, Body, CudaGraphs, Recording, Replayed, unchanged

NEEDS_GPU = pytest.mark.skipif(not gpu_count(), reason="there is no NVIDIA GPU")


class RunsAgain:
    """Records on a processor: inputs and output stay in place, and replaying runs the function."""

    def __init__(self) -> None:
        self.warm_ups: list[tuple[int, ...]] = []

    def warm_up(self, body: Body, inputs: Sequence[Tensor]) -> None:
        self.warm_ups.append(tuple(len(given) for given in inputs))
        for _ in range(WARM_UP_RUNS):
            body(*inputs)

    def record(self, body: Body, inputs: Sequence[Tensor]) -> Recording:
        output = torch.empty(())

        def replay() -> None:
            output.copy_(body(*inputs))

        return Recording(inputs, output, replay)


@pytest.mark.parametrize("cache_gb", [4.0, 0.0])
def test_replayed_steps_train_as_others_do(
    data_root: Path, teacher_file: Path, cache_gb: float
) -> None:
    """Warming up leaves weights, statistics and momentum alone; no result overwrites another."""
    options = replace(OPTIONS, cache_gb=cache_gb)
    fits = [start(data_root, teacher_file, options) for _ in range(2)]
    fits[1].recorder = recorder = RunsAgain()
    for _ in range(2):
        records = [fit.run_epoch() for fit in fits]
        assert (records[0].loss, records[0].held_out) == (records[1].loss, records[1].held_out)
    states = [fit.resume_state() for fit in fits]
    assert_same_states(states[0]["student"], states[1]["student"])
    for index, kept in states[0]["optimiser"]["state"].items():
        assert_same_states(kept, states[1]["optimiser"]["state"][index])
    inputs = 1 if cache_gb else 4
    assert recorder.warm_ups == [(5,) * inputs, (2,) * inputs, (3,) * inputs]


def test_replayed_steps_say_where_the_seconds_went(data_root: Path, teacher_file: Path) -> None:
    fit = start(data_root, teacher_file)
    fit.recorder = RunsAgain()
    first, second = fit.run_epoch(), fit.run_epoch()
    assert first.seconds_by_stage.keys() == {"capture", "replay", "wait", "held_out"}
    assert second.seconds_by_stage.keys() == {"replay", "wait", "held_out"}
    assert sum(first.seconds_by_stage.values()) <= first.seconds


def test_replayed_steps_follow_a_state_that_is_loaded(data_root: Path, teacher_file: Path) -> None:
    """The optimiser's momentum is then another tensor than the one that was recorded."""
    fits = [start(data_root, teacher_file) for _ in range(2)]
    fits[1].recorder = RunsAgain()
    for fit in fits:
        state = fit.resume_state()
        fit.run_epoch()
        fit.load_resume_state(state, {})
    assert fits[0].run_epoch().loss == fits[1].run_epoch().loss
    assert_same_states(fits[0].model.student.state_dict(), fits[1].model.student.state_dict())


def test_unchanged_restores_values_and_zeroes_what_is_new() -> None:
    kept = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
    state = [kept]
    with unchanged(lambda: state):
        with torch.no_grad():
            kept.mul_(5)
        state.append(torch.nn.Parameter(torch.ones(3)))
    assert state[0] is kept
    assert kept.tolist() == [1.0, 2.0]
    assert state[1].tolist() == [0.0] * 3


def test_a_function_is_recorded_once_for_each_shape() -> None:
    recorder = RunsAgain()
    double = Replayed(lambda x: 2 * x.sum(), recorder)
    results = [double(torch.full((n,), float(n))) for n in (2, 3, 2, 3)]
    assert [float(result) for result in results] == [8.0, 18.0, 8.0, 18.0]
    assert recorder.warm_ups == [(2,), (3,)]


ON_GPU = replace(OPTIONS, device="cuda")
PRECISIONS = pytest.mark.parametrize("precision", ["fp32", "bf16"])


def on_gpu(data_root: Path, teacher_file: Path, options: FitOptions) -> StpmTrainer:
    fit = start(data_root, teacher_file, options)
    assert fit.train.is_resident == fit.held_out.is_resident == (options.cache_gb > 0)
    return fit


@NEEDS_GPU
@PRECISIONS
@pytest.mark.parametrize("cache_gb", [4.0, 0.0])
def test_a_gpus_graph_trains_as_its_kernels_do(
    data_root: Path, teacher_file: Path, precision: str, cache_gb: float
) -> None:
    options = replace(ON_GPU, precision=precision, cache_gb=cache_gb)
    captured, eager = (on_gpu(data_root, teacher_file, options) for _ in range(2))
    assert captured.recorder is not None
    eager.recorder = None
    tolerance = 1e-4 if precision == "fp32" else 2e-2
    for _ in range(2):
        records = captured.run_epoch(), eager.run_epoch()
        assert records[0].loss == pytest.approx(records[1].loss, rel=tolerance)
        assert records[0].held_out == pytest.approx(records[1].held_out, rel=10 * tolerance)
    for key, value in eager.student.state_dict().items():
        other = captured.student.state_dict()[key]
        torch.testing.assert_close(other, value, rtol=10 * tolerance, atol=tolerance)


@NEEDS_GPU
@PRECISIONS
def test_a_gpu_resumes_bit_for_bit(
    data_root: Path, teacher_file: Path, tmp_path: Path, precision: str
) -> None:
    options = replace(ON_GPU, precision=precision)
    whole, parts = tmp_path / "whole.pt", tmp_path / "parts.pt"
    list(epochs(data_root, teacher_file, whole, options))
    list(epochs(data_root, teacher_file, parts, replace(options, epochs=1)))
    list(epochs(data_root, teacher_file, parts, options, resume=True))
    first, second = load_checkpoint(whole), load_checkpoint(parts)
    first.training.pop("options"), second.training.pop("options")
    assert_same_runs(first, second)


@NEEDS_GPU
def test_capturing_changes_nothing_and_each_length_has_its_graph() -> None:
    table = torch.arange(10, device="cuda", dtype=torch.float32)
    total = torch.zeros((), device="cuda")

    def add(index: Tensor) -> Tensor:
        total.add_(table[index].sum())
        return total * 1

    replayed = Replayed(add, CudaGraphs(), lambda: [total])
    assert float(replayed(torch.tensor([1, 2, 3], device="cuda"))) == 6
    assert float(replayed(torch.tensor([4], device="cuda"))) == 10
    assert float(replayed(torch.tensor([5, 5, 5], device="cuda"))) == 25


@NEEDS_GPU
def test_a_gpus_graph_reads_the_learning_rate_anew(data_root: Path, teacher_file: Path) -> None:
    fit = on_gpu(data_root, teacher_file, replace(ON_GPU, momentum=0.0, weight_decay=0.0))
    fit.run_epoch()
    weight = fit.student.state_dict()["conv1.weight"].clone()
    for group in fit.optimiser.param_groups:
        group["lr"].zero_()
    fit.run_epoch()
    assert torch.equal(fit.student.state_dict()["conv1.weight"], weight)
    for group in fit.optimiser.param_groups:
        group["lr"].fill_(0.1)
    fit.run_epoch()
    assert not torch.equal(fit.student.state_dict()["conv1.weight"], weight)


@NEEDS_GPU
def test_fp16_on_a_gpu_is_launched_kernel_by_kernel(data_root: Path, teacher_file: Path) -> None:
    fit = on_gpu(data_root, teacher_file, replace(ON_GPU, precision="fp16"))
    assert fit.recorder is None
    assert fit.run_epoch().loss > fit.run_epoch().loss


@NEEDS_GPU
def test_a_student_trained_on_a_gpu_goes_on_on_a_processor(
    data_root: Path, teacher_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "weave.pt"
    options = replace(ON_GPU, epochs=2)
    list(epochs(data_root, teacher_file, out, options))
    resumed = list(epochs(data_root, teacher_file, out, OPTIONS, resume=True))
    assert [record.epoch for record in resumed] == [3]
    first = load_checkpoint(out).resume["log"][0]
    assert resumed[0].loss < first["loss"]
