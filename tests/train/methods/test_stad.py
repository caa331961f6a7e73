"""STAD: losses and scores against their definitions, teachers that are kept, a small run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stpm.runtime.errors import CheckpointError
from stpm.train.checkpoint import Checkpoint, load_checkpoint
from stpm.train.methods import TeacherSource, configure
from stpm.train.methods.stad import METHOD
from stpm.train.methods.stad import teacher as stad_teacher
from stpm.train.methods.stad.network import Stad, StadConfig
from stpm.train.methods.stad.patch_networks import DESCRIPTOR_SIZE, PatchNetworks
from stpm.train.methods.stad.teacher import (
    Patches,
    compactness_loss,
    distillation_loss,
    metric_loss,
)
from stpm.train.options import FitOptions


def test_the_compactness_loss_is_the_sum_of_correlations() -> None:
    values = np.random.default_rng(0).normal(size=(50, 6))
    correlation = np.corrcoef(values.T)
    expected = correlation.sum() - np.trace(correlation)
    assert float(compactness_loss(torch.from_numpy(values))) == pytest.approx(expected)


def test_the_metric_loss_takes_the_nearer_of_both_negatives() -> None:
    anchor, positive = torch.tensor([[0.0, 0.0]]), torch.tensor([[1.0, 0.0]])
    negative = torch.tensor([[1.5, 0.0]])
    # d+ = 1; the anchor's negative is at 2.25, the positive's at 0.25.
    assert float(metric_loss(anchor, positive, negative)) == pytest.approx(1 + 1 - 0.25)
    assert float(metric_loss(anchor, positive, negative + 9)) == 0


def test_the_distillation_loss_sums_over_features() -> None:
    loss = distillation_loss(torch.zeros(2, 3), torch.tensor([[1.0, 2, 2], [0, 0, 1]]))
    assert float(loss) == pytest.approx((9 + 1) / 2)


def test_patches_are_crops_of_the_images(data_root: Path) -> None:
    paths = sorted((data_root / "weave/train/good").iterdir())
    anchors, positives, negatives = Patches(paths, 17, 0).draw(5)
    again, _, _ = Patches(paths, 17, 0).draw(5)
    assert torch.equal(anchors, again)
    for part in (anchors, positives, negatives):
        assert part.shape == (5, 3, 17, 17)
        assert 0 <= float(part.min()) < float(part.max()) <= 1
    assert not torch.equal(anchors, positives)


def test_a_teacher_is_trained_once_and_then_reused(
    data_root: Path, teacher_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = sorted((data_root / "weave/train/good").iterdir())

    shown: list[tuple[str, int, str]] = []
    steps: list[int] = []

    @contextmanager
    def progress(*what: Any) -> Iterator[Callable[[int], None]]:
        shown.append(what)
        yield steps.append

    def take(**changed: Any) -> tuple[torch.Tensor, str]:
        settings = {"teacher_steps": 2, "teacher_batch": 4, "metric": 0.5}
        config = StadConfig((32, 32), (17,), **(settings | changed))
        source = TeacherSource(teacher_file, folder=tmp_path / "kept")
        METHOD.prepare_teacher(config, FitOptions(), source, good, progress)
        network, identity = METHOD.blank(config, FitOptions(), source)
        return network.teacher.state_dict()["members.0.convolutions.0.weight"], identity["source"]

    first, name = take()
    monkeypatch.setattr(stad_teacher, "train_teacher", None)
    second, same = take()
    assert torch.equal(first, second)
    assert name == same
    assert shown == [(f"{tmp_path}/kept/stad_teacher_p17.pt, trained on 15 images", 2, "steps")]
    assert steps == [1, 1]
    with pytest.raises(CheckpointError, match="repeat the same settings"):
        take(teacher_steps=3)
    (tmp_path / "kept/stad_teacher_p17.pt").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="not a STAD teacher"):
        take()


def test_a_teacher_that_is_not_kept_is_said(tmp_path: Path) -> None:
    source = TeacherSource(folder=tmp_path)
    with pytest.raises(CheckpointError, match="there is no such teacher"):
        METHOD.blank(StadConfig((32, 32), (17,)), FitOptions(), source)
    assert not list(tmp_path.iterdir())


def test_scores_are_the_papers_errors_standardised() -> None:
    config = StadConfig((18, 18), (17, 33), 2)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        network = Stad(config, PatchNetworks(config.patch_sizes)).requires_grad_(False)
        for name, buffer in network.student.named_buffers():
            buffer.copy_(torch.rand_like(buffer) + (0.5 if "deviation" in name else 0))
        images = torch.randint(256, (1, 18, 18, 3), dtype=torch.uint8)
    maps, scores = network(images)
    x = network.normalise(images)
    expected = np.zeros((1, 18, 18))
    for scale in range(2):
        target = network.teacher(x)[scale].double().numpy()
        stats = {n: b.double().numpy()[scale] for n, b in network.student.named_buffers()}
        shape = (1, DESCRIPTOR_SIZE, 1, 1)
        target = (target - stats["target_mean"].reshape(shape)) / stats["target_deviation"].reshape(
            shape
        )
        outputs = np.stack(
            [o.double().numpy() for o in network.student.networks(x)[2 * scale : 2 * scale + 2]]
        )
        mean = outputs.mean(0)
        e = ((mean - target) ** 2).sum(1)
        v = (outputs**2).sum(2).mean(0) - (mean**2).sum(1)
        for i, value in enumerate((e, v)):
            expected += (value - stats["score_mean"][i]) / stats["score_deviation"][i] / 2
    np.testing.assert_allclose(maps.numpy(), expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(scores, maps.amax(dim=(1, 2)))


def test_held_out_errors_are_standardised(stad_checkpoint: Checkpoint, data_root: Path) -> None:
    from stpm.train.datasets import read_images

    _, images = read_images(stad_checkpoint.held_out_images(), stad_checkpoint.config.input_size)
    model = stad_checkpoint.model()
    maps, _ = model(torch.from_numpy(images))
    # The sum of two standardised errors has mean zero over the same images.
    assert abs(float(maps.mean())) < 1e-3


def test_a_checkpoint_survives_the_disk(stad_checkpoint: Checkpoint) -> None:
    assert isinstance(stad_checkpoint.config, StadConfig)
    assert stad_checkpoint.config.patch_sizes == (17,)
    assert isinstance(stad_checkpoint.model(), Stad)


def test_settings_are_read_as_they_are_typed() -> None:
    config = configure("stad", (64, 64), {"patch-sizes": "17,65", "students": "5", "metric": "1"})
    assert config == StadConfig((64, 64), (17, 65), 5, metric=1.0)
    with pytest.raises(CheckpointError, match="which stad does not have, expected one of patch"):
        configure("stad", (64, 64), {"levels": "layer1"})
    with pytest.raises(CheckpointError, match="got students=x, expected something like 3"):
        configure("stad", (64, 64), {"students": "x"})
    with pytest.raises(CheckpointError, match="expected one of stpm, rd, stad, spade"):
        configure("other", (64, 64))


def test_students_learn(data_root: Path, teacher_file: Path, tmp_path: Path) -> None:
    from dataclasses import replace

    from stpm.train.pipeline import open_run, read_source

    config = configure(
        "stad",
        (12, 12),
        {"patch-sizes": "17", "students": "2", "teacher-steps": "1", "teacher-batch": "4"},
    )
    options = replace(
        METHOD.recipes["paper"],
        epochs=3,
        train_share=0.3,
        learning_rate=1e-3,
        device="cpu",
        precision="fp32",
    )
    source = read_source(data_root / "weave/train/good", config, options)
    teacher = TeacherSource(teacher_file, None, tmp_path)
    fit, _ = open_run(
        source, config, options, teacher_weights=teacher.weights, teacher_folder=teacher.folder
    )
    fit.prepare(lambda _: None)
    losses = [fit.run_epoch().loss for _ in range(3)]
    assert losses[2] < losses[1] < losses[0]


def test_refuses_no_student() -> None:
    with pytest.raises(Exception, match="fewer than one student"):
        configure("stad", (64, 64), {"students": "0"})


@pytest.fixture
def stad_checkpoint(stad_path: Path) -> Checkpoint:
    return load_checkpoint(stad_path)
