"""Students that start from the teacher's features, up to a layer that both share."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from fit_runs import OPTIONS, assert_same_states
from torch.nn import functional as F

from stpm.runtime.errors import CheckpointError
from stpm.train import pipeline
from stpm.train.backbones import LEVELS, load_teacher
from stpm.train.checkpoint import load_checkpoint
from stpm.train.methods.stpm.network import ModelConfig, Stpm
from stpm.train.methods.stpm.trainer import StpmTrainer

OWN_LAYERS = {
    "conv1": ["layer1", "layer2", "layer3"],
    "layer1": ["layer2", "layer3"],
    "layer2": ["layer3"],
}


def config(share_to: str) -> ModelConfig:
    return ModelConfig(input_size=(32, 32), share_to=share_to)


def begin(share_to: str, data_root: Path, teacher_file: Path) -> StpmTrainer:
    source = pipeline.read_source(data_root / "weave/train/good", config(share_to), OPTIONS)
    fit, _ = pipeline.open_run(source, config(share_to), OPTIONS, teacher_weights=teacher_file)
    fit.prepare(lambda _: None)
    assert isinstance(fit, StpmTrainer)
    return fit


@pytest.mark.parametrize("share_to", OWN_LAYERS)
def test_the_student_begins_after_the_shared_layer(share_to: str, teacher_file: Path) -> None:
    teacher, _ = load_teacher("resnet18", config(share_to).taps, teacher_file)
    network = Stpm(config(share_to), teacher).eval()
    assert [name for name, _ in network.student.named_children()] == OWN_LAYERS[share_to]
    # A student with the teacher's own layers above differs nowhere.
    own = {k: v for k, v in teacher.state_dict().items() if k in network.student.state_dict()}
    network.student.load_state_dict(own)
    maps, scores = network(torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8))
    assert maps.shape == (2, 32, 32)
    assert float(scores.detach().max()) < 1e-12


@pytest.mark.parametrize("share_to", OWN_LAYERS)
def test_an_epoch_is_that_of_a_whole_student_whose_first_layers_are_the_teachers(
    share_to: str, data_root: Path, teacher_file: Path
) -> None:
    """In torch's own functions, the shared layers run from the image."""
    fit = begin(share_to, data_root, teacher_file)
    whole, _ = load_teacher("resnet18", ("conv1", *LEVELS[:3]), teacher_file)
    student = copy.deepcopy(fit.model.student).train()
    optimiser = torch.optim.SGD(student.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    shared_at = ("conv1", *LEVELS).index(share_to)
    order = torch.from_numpy(np.random.default_rng((0, 0)).permutation(12))
    losses = []
    for index in order.split(OPTIONS.batch_size):
        outputs = whole(fit.train.pixels(index))  # of which FP16 is kept
        units = [F.normalize(t, dim=1).half().float() for t in outputs[shared_at + 1 :]]
        made = student(outputs[shared_at].half().float())
        loss = sum(
            (t - F.normalize(s, dim=1)).square().sum(dim=1).mean()
            for t, s in zip(units, made, strict=True)
        )
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item() * len(index))
    before = copy.deepcopy(fit.model.teacher.state_dict())
    assert fit.run_epoch().loss == pytest.approx(sum(losses) / 12, rel=1e-3)
    assert_same_states(fit.model.teacher.state_dict(), before)
    learnt = fit.model.student.state_dict()
    for name, value in student.state_dict().items():
        assert torch.allclose(learnt[name], value, rtol=1e-2, atol=1e-4), name


def test_a_checkpoint_keeps_what_is_shared(
    data_root: Path, teacher_file: Path, tmp_path: Path
) -> None:
    wished, out = config("layer1"), tmp_path / "weave.pt"
    source = pipeline.read_source(data_root / "weave/train/good", wished, OPTIONS)
    fit, blank = pipeline.open_run(source, wished, OPTIONS, teacher_weights=teacher_file)
    fit.prepare(lambda _: None)
    list(pipeline.train(fit, blank, out, lambda _: None))
    checkpoint = load_checkpoint(out)
    assert checkpoint.config == wished
    assert not any(name.startswith(("conv1", "bn1", "layer1")) for name in checkpoint.student)
    assert checkpoint.model()(torch.zeros(1, 32, 32, 3, dtype=torch.uint8))[1].isfinite().all()


@pytest.mark.parametrize(
    ("levels", "share_to", "message"),
    [
        (("layer1",), "layer1", "got levels layer1 that are all shared up to layer1, expected one"),
        (LEVELS[:3], "layer3", "that are all shared up to layer3"),
        (LEVELS[:3], "stem", "got 'stem' to share to, expected one of conv1, layer1, layer2; "),
    ],
)
def test_what_leaves_nothing_to_compare_is_refused(
    levels: tuple[str, ...], share_to: str, message: str
) -> None:
    with pytest.raises(CheckpointError, match=message):
        ModelConfig(levels=levels, share_to=share_to).check()


def test_a_whole_students_config_is_written_as_ever() -> None:
    assert "share_to" not in ModelConfig().to_dict()
    assert ModelConfig(share_to="conv1").to_dict()["share_to"] == "conv1"
