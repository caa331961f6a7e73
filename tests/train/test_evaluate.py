"""Evaluation: any scorer's outputs reach the metrics unchanged, overall and by kind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from stpm.runtime.errors import DataError
from stpm.runtime.images.preprocess import load_image
from stpm.train import datasets
from stpm.train.checkpoint import load_checkpoint
from stpm.train.datasets import Sample, read_mask
from stpm.train.evaluate import BATCH_SIZE, Outputs, evaluate, score_files, torch_scorer
from stpm.train.methods.stpm.network import ModelConfig
from stpm.train.metrics import auroc, evaluate_maps
from stpm.train.options import FitOptions
from stpm.train.pipeline import open_run, read_source, train

MAP_SIZE = (16, 24)


class FakeScorer:
    """Scores that follow the pixels loosely; remembers what it was given."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def __call__(self, images: Sequence[np.ndarray]) -> Outputs:
        self.batches.append(len(images))
        maps = [self.one(image) for image in images]
        return np.stack(maps), np.array([m.max() for m in maps], np.float32)

    @staticmethod
    def one(image: np.ndarray) -> np.ndarray:
        height, width = MAP_SIZE
        small = np.asarray(Image.fromarray(image[..., 0]).resize((width, height)), np.float32)
        noise = np.random.default_rng(int(image.sum())).normal(0, 60, MAP_SIZE)
        return (small + noise).astype(np.float32)


@pytest.fixture
def samples(data_root: Path) -> list[Sample]:
    """Ten test images of three kinds: good, hole and a few holes relabelled as stains."""
    found = datasets.labelled_samples(data_root / "weave")
    return found + [replace(s, kind="stain") for s in found[-2:]]


def test_the_image_that_is_refused_is_named(samples: list[Sample]) -> None:
    refused = load_image(samples[3].path)

    def picky(images: Sequence[np.ndarray]) -> Outputs:
        if any(np.array_equal(image, refused) for image in images):
            raise DataError("got an image that is refused")
        return FakeScorer()(images)

    with pytest.raises(DataError) as error:
        score_files(picky, [sample.path for sample in samples])
    assert str(error.value) == f"{samples[3].path}: got an image that is refused"


def by_hand(samples: list[Sample]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    maps = np.stack([FakeScorer.one(load_image(s.path)) for s in samples])
    scores = maps.max(axis=(1, 2))
    masks = np.stack([read_mask(s, MAP_SIZE) for s in samples])
    return np.array([s.kind != "good" for s in samples]), scores, masks, maps


def test_metrics_are_those_of_the_scorers_outputs(samples: list[Sample]) -> None:
    evaluation = evaluate(FakeScorer(), samples)
    anomalous, scores, masks, maps = by_hand(samples)
    assert evaluation.overall == evaluate_maps(anomalous, scores, masks, maps)
    assert evaluation.samples == samples
    np.testing.assert_array_equal(evaluation.pred_scores, scores)
    assert 0.5 < evaluation.overall.pixel_auroc < 1


def test_each_kind_is_scored_against_the_good_images(samples: list[Sample]) -> None:
    evaluation = evaluate(FakeScorer(), samples)
    assert evaluation.by_kind.keys() == {"hole", "stain"}
    for kind, metrics in evaluation.by_kind.items():
        chosen = [s for s in samples if s.kind in ("good", kind)]
        assert len(chosen) < len(samples)
        assert metrics == evaluate_maps(*by_hand(chosen))
        assert metrics != evaluation.overall


@pytest.mark.parametrize("missing", ["all", "one"])
def test_without_every_mask_only_images_are_scored(samples: list[Sample], missing: str) -> None:
    bare = [
        replace(s, mask=None) if missing == "all" or i == len(samples) - 1 else s
        for i, s in enumerate(samples)
    ]
    full, evaluation = evaluate(FakeScorer(), samples), evaluate(FakeScorer(), bare)
    for metrics in (evaluation.overall, *evaluation.by_kind.values()):
        assert (metrics.pixel_auroc, metrics.aupro, metrics.pro_rescaled) == (None, None, None)
    assert evaluation.overall.image_auroc == full.overall.image_auroc


@pytest.mark.parametrize("kind", ["good", "hole"])
def test_one_class_alone_has_no_image_auroc(samples: list[Sample], kind: str) -> None:
    chosen = [s for s in samples if s.kind == kind]
    evaluation = evaluate(FakeScorer(), chosen)
    assert evaluation.overall.image_auroc is None
    assert len(evaluation.pred_scores) == len(chosen)
    assert list(evaluation.by_kind) == ([] if kind == "good" else [kind])
    masks, maps = by_hand(chosen)[2:]
    expected = None if kind == "good" else auroc(masks, maps)
    assert evaluation.overall.pixel_auroc == expected


def test_no_images_are_refused() -> None:
    with pytest.raises(DataError, match="has no images"):
        evaluate(FakeScorer(), [])


def test_files_are_scored_in_order_and_few_at_a_time(samples: list[Sample]) -> None:
    paths = [s.path for s in samples]
    scorer, done = FakeScorer(), list[int]()
    maps, scores = score_files(scorer, iter(paths), done.append)
    assert scorer.batches == done == [BATCH_SIZE, len(paths) - BATCH_SIZE]
    _, expected, _, expected_maps = by_hand(samples)
    np.testing.assert_array_equal(maps, expected_maps)
    np.testing.assert_array_equal(scores, expected)


def test_an_undecodable_test_image_is_named(samples: list[Sample], tmp_path: Path) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no image")
    with pytest.raises(DataError, match=r"bad\.png: not an image"):
        score_files(FakeScorer(), [samples[0].path, bad])


def test_torch_scorer_resizes_and_runs_the_network(checkpoint_path: Path) -> None:
    model = load_checkpoint(checkpoint_path).model()
    images = [np.random.default_rng(i).integers(0, 256, (50 + i, 90, 3), np.uint8) for i in (0, 1)]
    maps, scores = torch_scorer(model)(images)
    resized = [
        np.asarray(Image.fromarray(i).resize((64, 64), Image.Resampling.BILINEAR)) for i in images
    ]
    with torch.inference_mode():
        expected_maps, expected_scores = model(torch.tensor(np.stack(resized)))
    np.testing.assert_array_equal(maps, expected_maps)
    np.testing.assert_array_equal(scores, expected_scores)
    assert (maps.shape, maps.dtype, scores.dtype) == ((2, 64, 64), np.float32, np.float32)


def test_a_trained_student_finds_the_holes(
    data_root: Path, teacher_file: Path, tmp_path: Path
) -> None:
    config = ModelConfig(input_size=(64, 64))
    options = FitOptions(4, 4, learning_rate=0.1, device="cpu", precision="fp32")
    source = read_source(data_root / "weave/train/good", config, options)
    fit, blank = open_run(source, config, options, teacher_weights=teacher_file)
    fit.prepare(lambda _: None)
    for _ in train(fit, blank, tmp_path / "weave.pt", lambda _: None):
        pass
    scorer = torch_scorer(load_checkpoint(tmp_path / "weave.pt").model())
    evaluation = evaluate(scorer, datasets.labelled_samples(data_root / "weave"))
    assert evaluation.overall == evaluation.by_kind["hole"]
    assert evaluation.overall.image_auroc > 0.9
    assert evaluation.overall.pixel_auroc > 0.75
