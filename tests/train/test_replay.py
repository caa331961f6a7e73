"""Replayed training steps against the same steps one by one, on a real GPU."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from stpm.runtime.gpu import gpu_count
from stpm.train.backbones import pyramid
from stpm.train.fit import Fit, FitOptions
from stpm.train.replay import Replay
from stpm.train.run_state import Precision
from stpm.train.stpm import ModelConfig, Stpm

pytestmark = pytest.mark.skipif(not gpu_count(), reason="there is no NVIDIA GPU")
CONFIG = ModelConfig(input_size=(64, 64))


def fit(precision: Precision, *, cache_gb: float = 4.0) -> Fit:
    """13 images to train on: an epoch's last batch is smaller than the others."""
    random = np.random.default_rng(1)
    train, held_out = (random.integers(0, 256, (n, 64, 64, 3), np.uint8) for n in (13, 5))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Stpm(CONFIG, pyramid(CONFIG.backbone, CONFIG.levels))
    options = FitOptions(
        epochs=4, batch_size=4, device="cuda", precision=precision, cache_gb=cache_gb
    )
    made = Fit(model, train, held_out, options)
    made.prepare(lambda _: None)
    return made


def weights(run: Fit) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in run.student.state_dict().items()}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_replayed_epochs_are_those_of_single_steps(
    precision: Precision, monkeypatch: pytest.MonkeyPatch
) -> None:
    replayed, single = fit(precision), fit(precision)
    assert replayed.train.is_resident
    records = [replayed.run_epoch() for _ in range(3)]
    monkeypatch.setattr(Fit, "_is_captured", False)
    for record in records:
        expected = single.run_epoch()
        assert record.loss == pytest.approx(expected.loss, rel=1e-3)
        assert record.held_out == pytest.approx(expected.held_out, rel=1e-2)
    for name, value in weights(single).items():
        torch.testing.assert_close(weights(replayed)[name], value, rtol=1e-2, atol=1e-3)


def test_a_resumed_run_ends_with_the_same_bits() -> None:
    whole, first, second = fit("bf16"), fit("bf16"), fit("bf16")
    for _ in range(4):
        whole.run_epoch()
    for _ in range(2):
        first.run_epoch()
    second.load_resume_state(first.resume_state(), first.best_student)
    for _ in range(2):
        second.run_epoch()
    for name, value in weights(whole).items():
        assert torch.equal(weights(second)[name], value), name


def test_without_room_for_the_features_it_trains_step_by_step() -> None:
    run = fit("fp32", cache_gb=0)
    assert not run.train.is_resident
    assert set(run.run_epoch().seconds_by_stage) == {
        *("teacher", "forward", "backward", "optimiser", "held_out")
    }


def test_capturing_changes_nothing_and_each_length_has_its_graph() -> None:
    table = torch.arange(10, device="cuda", dtype=torch.float32)
    total = torch.zeros((), device="cuda")

    def add(index: torch.Tensor) -> torch.Tensor:
        total.add_(table[index].sum())
        return total * 1

    replay = Replay(add, lambda: [total])
    assert float(replay(torch.tensor([1, 2, 3], device="cuda"))) == 6
    assert float(replay(torch.tensor([4], device="cuda"))) == 10
    assert float(replay(torch.tensor([5, 5, 5], device="cuda"))) == 25
