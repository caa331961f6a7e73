"""Training: what each epoch does and reports."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from fit_runs import CONFIG, OPTIONS, assert_same_states, start
from torch.nn import functional as F

from stpm.runtime.errors import StpmError
from stpm.train import pipeline, run_state
from stpm.train.backbones import load_teacher
from stpm.train.epochs import EpochRecord
from stpm.train.methods.distillation import BYTES_PER_GB
from stpm.train.methods.stpm.network import Stpm
from stpm.train.methods.stpm.trainer import StpmTrainer
from stpm.train.run_state import resolve_device, resolve_precision

BYTES_PER_IMAGE = 2 * (64 * 8 * 8 + 128 * 4 * 4 + 256 * 2 * 2)
"""Of the teacher's features in FP16."""
CPU = torch.device("cpu")


def test_seeds_differ_in_split_weights_and_order(data_root: Path, teacher_file: Path) -> None:
    fits = [start(data_root, teacher_file, replace(OPTIONS, seed=seed)) for seed in (0, 1)]
    splits = [
        pipeline.read_source(data_root / "weave/train/good", CONFIG, fit.options).held_out_index
        for fit in fits
    ]
    assert splits[0] != splits[1]
    weights = [fit.model.student.state_dict()["conv1.weight"] for fit in fits]
    assert not torch.equal(*weights)
    assert fits[0].run_epoch().loss != fits[1].run_epoch().loss


def test_only_the_student_learns(data_root: Path, teacher_file: Path) -> None:
    fit = start(data_root, teacher_file)
    student = {k: v.clone() for k, v in fit.model.student.state_dict().items()}
    fit.run_epoch()
    untouched, _ = load_teacher("resnet18", CONFIG.levels, teacher_file)
    assert_same_states(fit.model.teacher.state_dict(), untouched.state_dict())
    learnt = fit.model.student.state_dict()
    assert not any(torch.equal(learnt[key], value) for key, value in student.items())


def test_every_image_counts_once_an_epoch_in_an_order_of_its_own(
    data_root: Path, teacher_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit, orders = start(data_root, teacher_file), []
    targets = fit.train.targets
    for _ in range(2):
        seen: list[int] = []
        monkeypatch.setattr(fit.train, "targets", lambda i, s=seen: (s.extend(i), targets(i))[1])
        fit.run_epoch()
        orders.append(seen)
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(12))
    assert orders[0] != orders[1] != sorted(orders[1])


def test_an_epoch_is_a_plain_loop(data_root: Path, teacher_file: Path) -> None:
    """Of torch's own functions; its loss is the mean over images, not over batches."""
    fit, sizes = start(data_root, teacher_file), []
    student = copy.deepcopy(fit.model.student).train()
    optimiser = torch.optim.SGD(student.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    order = torch.from_numpy(np.random.default_rng((0, 0)).permutation(12))
    losses = []
    for index in order.split(5):
        features = student(fit.train.pixels(index))
        targets = fit.train.targets(index)
        distances = [
            (target.float() - F.normalize(level)).square().sum(dim=1).mean()
            for target, level in zip(targets, features, strict=True)
        ]
        loss = torch.stack(distances).sum()
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        losses.append(loss.item())
    record = fit.run_epoch(sizes.append)
    assert sizes == [5, 5, 2]
    assert record.loss == pytest.approx((5 * losses[0] + 5 * losses[1] + 2 * losses[2]) / 12)
    assert record.loss != pytest.approx(sum(losses) / 3, rel=1e-6)
    for key, value in fit.model.student.state_dict().items():
        torch.testing.assert_close(value, student.state_dict()[key], rtol=1e-3, atol=3e-4)
    assert fit.run_epoch().loss < record.loss


def test_held_out_is_the_mean_map_of_the_network(data_root: Path, teacher_file: Path) -> None:
    fit = start(data_root, teacher_file)
    record = fit.run_epoch()
    source = pipeline.read_source(data_root / "weave/train/good", CONFIG, OPTIONS)
    with torch.inference_mode():
        maps, _ = fit.model.eval()(torch.from_numpy(source.images[source.held_out_index]))
    assert record.held_out == pytest.approx(float(maps.mean()), rel=1e-3)


def test_the_lowest_held_out_map_is_kept(
    data_root: Path, teacher_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit = start(data_root, teacher_file)
    values = [3.0, 1.0, 2.0]
    monkeypatch.setattr(fit, "_mean_held_out_map", iter(values).__next__)
    records, students = [], []
    for _ in values:
        records.append(fit.run_epoch())
        students.append({k: v.clone() for k, v in fit.model.student.state_dict().items()})
    assert [r.held_out for r in records] == values
    assert [r.is_best for r in records] == [True, True, False]
    assert (fit.best_epoch, fit.best_held_out) == (2, 1.0)
    assert_same_states(fit.best_student, students[1])
    assert not torch.equal(students[1]["conv1.weight"], students[2]["conv1.weight"])


def fit_with_cache(data_root: Path, teacher_file: Path, images: int) -> StpmTrainer:
    """The cache holds that many images and not one more."""
    options = replace(OPTIONS, cache_gb=(images + 0.5) * BYTES_PER_IMAGE / BYTES_PER_GB)
    source = pipeline.read_source(data_root / "weave/train/good", CONFIG, options)
    fit, _ = pipeline.open_run(source, CONFIG, options, teacher_weights=teacher_file)
    seen: list[int] = []
    assert fit.cache_teacher(seen.append) == images * BYTES_PER_IMAGE
    assert sum(seen) == images
    return fit


@pytest.fixture(scope="module")
def all_cached(data_root: Path, teacher_file: Path) -> tuple[StpmTrainer, EpochRecord]:
    fit = fit_with_cache(data_root, teacher_file, 15)
    return fit, fit.run_epoch()


@pytest.mark.parametrize(("images", "cached"), [(0, (0, 0)), (7, (7, 0)), (13, (12, 1))])
def test_the_cache_changes_nothing(
    data_root: Path,
    teacher_file: Path,
    all_cached: tuple[StpmTrainer, EpochRecord],
    images: int,
    cached: tuple[int, int],
) -> None:
    reference, expected = all_cached
    fit = fit_with_cache(data_root, teacher_file, images)
    assert (fit.train.cached_count, fit.held_out.cached_count) == cached
    index = torch.tensor([11, 0, 6, 7])
    for a, b in zip(fit.train.targets(index), reference.train.targets(index), strict=True):
        assert a.dtype == b.dtype == torch.float16
        np.testing.assert_allclose(a.float(), b.float(), atol=1e-3)
    record = fit.run_epoch()
    assert record.loss == pytest.approx(expected.loss, rel=1e-4)
    assert record.held_out == pytest.approx(expected.held_out, rel=1e-3)


@pytest.mark.parametrize(
    ("batch_size", "broken"), [(5, "the loss is nan"), (32, "the held-out map is nan")]
)
def test_stops_when_training_diverges(
    data_root: Path, teacher_file: Path, batch_size: int, broken: str
) -> None:
    options = replace(OPTIONS, learning_rate=1e30, batch_size=batch_size)
    fit = start(data_root, teacher_file, options)
    with pytest.raises(StpmError, match=f"{broken} in epoch 1, .*; lower --learning-rate"):
        fit.run_epoch()
    assert fit.epoch == 0


@pytest.fixture
def imitated_fp16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_state, "_processor_computes_fp16", lambda: True)


@pytest.mark.usefixtures("imitated_fp16")
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_follows_fp32(data_root: Path, teacher_file: Path, precision: str) -> None:
    """In weights that stay FP32."""
    records = []
    for chosen in ("fp32", precision):
        options = replace(OPTIONS, precision=chosen, batch_size=6)
        fit = start(data_root, teacher_file, options)
        records.append(fit.run_epoch())
        assert all(p.dtype == torch.float32 for p in fit.model.student.parameters())
    assert records[0].loss != records[1].loss
    assert records[1].loss == pytest.approx(records[0].loss, rel=0.01)
    assert records[1].held_out == pytest.approx(records[0].held_out, rel=0.1)


@pytest.mark.usefixtures("imitated_fp16")
def test_fp16_resumes_with_its_loss_scale(data_root: Path, teacher_file: Path) -> None:
    fit = start(data_root, teacher_file, replace(OPTIONS, precision="fp16"))
    state = fit.resume_state()
    state["scaler"]["scale"] = 1024.0
    fit.load_resume_state(state, {})
    assert fit.resume_state()["scaler"]["scale"] == 1024.0


def test_a_gpu_that_is_absent_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(StpmError, match="torch finds no GPU; use --device cpu"):
        resolve_device("cuda")
    assert resolve_device("auto") == resolve_device("cpu") == CPU
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert resolve_device("auto") == resolve_device("cuda") == torch.device("cuda")


@pytest.mark.parametrize(("native", "expected"), [(True, torch.bfloat16), (False, torch.float32)])
def test_auto_precision_is_bf16_where_it_is_native(
    monkeypatch: pytest.MonkeyPatch, native: bool, expected: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: native)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: native)
    for device in ("cpu", "cuda"):
        assert resolve_precision("auto", torch.device(device)) == expected


def test_fp16_is_refused_where_it_is_imitated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_state, "_processor_computes_fp16", lambda: False)
    with pytest.raises(StpmError, match=r"no FP16 arithmetic .* use --precision auto"):
        resolve_precision("fp16", CPU)
    assert resolve_precision("fp16", torch.device("cuda")) == torch.float16
    monkeypatch.setattr(run_state, "_processor_computes_fp16", lambda: True)
    assert resolve_precision("fp16", CPU) == torch.float16


def test_a_last_batch_of_one_image_is_used(teacher_file: Path) -> None:
    teacher, _ = load_teacher("resnet18", CONFIG.levels, teacher_file)
    images = np.random.default_rng(0).integers(0, 256, (7, 32, 32, 3), dtype=np.uint8)
    fit = StpmTrainer(Stpm(CONFIG, teacher), images[:6], images[6:], OPTIONS)
    sizes: list[int] = []
    fit.run_epoch(sizes.append)
    assert sizes == [5, 1]


def test_the_rate_falls_linearly_over_the_last_steps(data_root: Path, teacher_file: Path) -> None:
    """12 images in batches of 5 are 3 steps an epoch; the last 6 of 12 steps cool down."""
    options = replace(OPTIONS, epochs=4, cooldown=0.5)
    fit, rates = start(data_root, teacher_file, options), []
    (group,) = fit.optimiser.param_groups
    for _ in range(4):
        fit.run_epoch(lambda _: rates.append(group["lr"]))
    assert rates == pytest.approx([0.1] * 7 + [0.1 * left / 6 for left in (5, 4, 3, 2, 1)])
