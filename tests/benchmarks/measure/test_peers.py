"""Peers are checked before they are timed."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from stpm.benchmarks.measure import peers
from stpm.benchmarks.measure.contenders import Contender
from stpm.benchmarks.measure.peers import agreement, peers_result
from stpm.runtime import Detector
from stpm.train.checkpoint import load_checkpoint
from stpm.train.datasets import labelled_samples
from stpm.train.evaluate import score_files, torch_scorer
from stpm.train.metrics import auroc


def maps(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((12, 8, 8)).astype(np.float32)


def test_a_common_factor_is_no_disagreement() -> None:
    found = agreement(8 * maps(), maps())
    assert found.factor == pytest.approx(8)
    assert found.map_difference < 1e-6
    assert found.rank_correlation == pytest.approx(1)
    assert found.holds("fp32")


def test_one_wrong_pixel_is_found() -> None:
    wrong = maps()
    wrong[3, 0, 0] += 0.05
    found = agreement(maps(), wrong)
    assert found.map_difference == pytest.approx(0.05 / maps()[3].max(), rel=0.01)
    assert not found.holds("fp32")
    assert found.map_difference > 1e-2


def test_other_scores_are_not_the_same_method() -> None:
    assert not agreement(maps(0), maps(1)).holds("bf16")


@pytest.fixture(scope="module")
def content(checkpoint_path: Path, bundle_path: Path, data_root: Path) -> dict:
    """Torch, the straightforward graph in two engines, our bundle; a fast and wrong one."""

    def wrong(index: int) -> tuple[float, np.ndarray]:
        return 0.001, np.full((64, 64), 1 + index, np.float32)

    @contextmanager
    def open_wrong():  # type: ignore[no-untyped-def]
        yield Contender("wrong", "fp32", wrong)

    with pytest.MonkeyPatch.context() as patch:
        original = peers.contenders

        def with_wrong(*args):  # type: ignore[no-untyped-def]
            # Compiling takes longer than all of this.
            found = {k: v for k, v in original(*args).items() if "torch.compile" not in k}
            return found | {"wrong": open_wrong}

        patch.setattr(peers, "contenders", with_wrong)
        samples = labelled_samples(data_root / "weave")
        return peers_result(checkpoint_path, [bundle_path], samples, images=6, rounds=3)


def test_everyone_who_runs_our_network_agrees(content: dict) -> None:
    # In bf16 the straightforward graph scores in bf16, too, and need not agree.
    found = {row["name"]: row for row in content["peers"] if row["precision"] == "fp32"}
    assert "torch eager" in found
    assert "ONNX Runtime, straightforward graph" in found
    assert any(name.startswith("weave.stpm") for name in found)
    for name, row in found.items():
        assert row["correct"] == (name != "wrong"), name


def test_the_fast_and_wrong_one_is_not_called_the_same(content: dict) -> None:
    row = content["peers"][-1]
    assert row["name"] == "wrong"
    assert row["ratio"]["high"] < 0.1
    assert row["correct"] is False


def test_scores_are_those_of_the_network(
    content: dict, checkpoint_path: Path, bundle_path: Path, data_root: Path
) -> None:
    samples = labelled_samples(data_root / "weave")
    paths = [sample.path for sample in samples]
    anomalous = np.array([sample.is_anomalous for sample in samples])
    _, scores = score_files(torch_scorer(load_checkpoint(checkpoint_path).model()), paths)
    by_name = {r["name"]: r["image_auroc"] for r in content["peers"] if r["precision"] == "fp32"}
    assert by_name["torch eager"] == auroc(anomalous, scores)
    ours = np.array([Detector(bundle_path)(path).score for path in paths])
    assert by_name[content["reference"]] == auroc(anomalous, ours)


def test_the_reference_takes_one_times_its_own_time(content: dict) -> None:
    row = content["peers"][0]
    assert row["name"] == content["reference"]
    assert row["ratio"] == {"median": 1.0, "low": 1.0, "high": 1.0}
    assert [len(taken) for taken in row["rounds_ms"]] == [2, 2, 2]


def test_who_is_left_out_is_said_with_the_command_that_installs_it(content: dict) -> None:
    (row,) = (r for r in content["left_out"] if "fp32" in r["name"])
    assert row["name"].startswith("anomalib")
    assert "pip install anomalib" in row["reason"]
