"""Baselines: distances against their definitions, autoencoders that learn, all in one command."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from stpm.benchmarks.cli import main
from stpm.benchmarks.studies.autoencoders import Autoencoder, autoencoder_scorer, train_autoencoder
from stpm.benchmarks.studies.shallow import (
    describe,
    k_means,
    nearest_neighbour,
    one_class_svm,
    shallow_scorer,
    training_vectors,
)
from stpm.train.checkpoint import load_checkpoint
from stpm.train.datasets import labelled_samples, read_image, read_images
from stpm.train.methods import interpolate_to
from stpm.train.metrics import auroc

RANDOM = np.random.default_rng(0)


def vectors(count: int) -> np.ndarray:
    return RANDOM.normal(size=(count, 6)).astype(np.float32)


def test_the_nearest_neighbour_is_the_smallest_of_all_distances() -> None:
    learnt, queries = vectors(40), vectors(7)
    expected = np.linalg.norm(queries[:, None] - learnt, axis=2).min(axis=1)
    np.testing.assert_allclose(nearest_neighbour(learnt, 0)(queries), expected, rtol=1e-5)


def test_k_means_measures_to_the_middle_of_the_nearest_cluster() -> None:
    middles = 100 * np.eye(10, 6, dtype=np.float32)
    middles[6:] = -50 * np.eye(4, 6, dtype=np.float32)
    offsets = np.array([[3.0], [-3.0]], np.float32) * np.ones(6, np.float32)
    learnt = (middles[:, None] + offsets).reshape(-1, 6)
    # Both ends of each pair are as far from its middle.
    np.testing.assert_allclose(k_means(learnt, 0)(learnt), 3 * 6**0.5, rtol=1e-4)


def test_the_one_class_svm_scores_what_is_far_higher() -> None:
    distance = one_class_svm(vectors(200), 0)
    near, far = distance(vectors(50)), distance(vectors(50) + 8)
    assert auroc(np.repeat([False, True], 50), np.concatenate([near, far])) > 0.99


def test_descriptors_are_drawn_from_every_image(checkpoint_path: Path, data_root: Path) -> None:
    model = load_checkpoint(checkpoint_path).model()
    paths = sorted((data_root / "weave/train/good").iterdir())[:3]
    images = [read_image(path) for path in paths]
    learnt = training_vectors(model, images, 4, 0)
    every = describe(model, images).flatten(1, 2).numpy()
    assert every.shape == (3, 16 * 16, 64 + 128 + 256)
    for i in range(3):
        for vector in learnt[4 * i : 4 * i + 4]:
            assert np.abs(every[i] - vector).max(axis=1).min() < 1e-4


def test_maps_are_distances_brought_to_the_images_size(
    checkpoint_path: Path, data_root: Path
) -> None:
    model = load_checkpoint(checkpoint_path).model()
    image = read_image(sorted((data_root / "weave/test/hole").iterdir())[0])
    maps, scores = shallow_scorer(model, lambda queries: queries.sum(axis=1))([image])
    sums = describe(model, [image]).sum(dim=3)[None]
    expected = interpolate_to(model.input_size)(sums)[0, 0]
    np.testing.assert_allclose(maps[0], expected, rtol=1e-4)
    assert scores[0] == maps.max()


@pytest.mark.parametrize("variational", [False, True])
def test_autoencoders_learn_good_parts_and_miss_holes(data_root: Path, variational: bool) -> None:
    _, good = read_images(sorted((data_root / "weave/train/good").iterdir()), (64, 64))
    samples = labelled_samples(data_root / "weave")
    anomalous = np.array([sample.is_anomalous for sample in samples])
    images = [read_image(sample.path) for sample in samples]

    def results(epochs: int) -> tuple[float, float]:
        network = train_autoencoder(good, epochs, 0, variational=variational)
        maps, scores = autoencoder_scorer(network, (64, 64))(images)
        return float(maps[~anomalous].mean()), auroc(anomalous, scores)

    untrained, _ = results(0)
    error, found = results(30)
    assert error < untrained / 5
    assert found == 1.0


def test_the_divergence_is_torchs() -> None:
    network = Autoencoder((16, 12), variational=True).eval()
    x = torch.rand(3, 3, 16, 12)
    reconstruction, divergence = network(x)
    assert reconstruction.shape == x.shape
    mean, log_variance = network.encoder(x).chunk(2, dim=1)
    codes = torch.distributions.Normal(mean, (log_variance / 2).exp())
    normal = torch.distributions.Normal(torch.zeros(()), torch.ones(()))
    expected = torch.distributions.kl_divergence(codes, normal).sum(dim=1).mean()
    torch.testing.assert_close(divergence, expected)


def test_one_command_evaluates_them_beside_the_checkpoint(
    stad_path: Path, data_root: Path, tmp_path: Path
) -> None:
    out = tmp_path / "baselines.json"
    arguments = ["baselines", stad_path, "--data", data_root, "--out", out]
    arguments += ["--vectors", 200, "--epochs", 1, "--train-share", 0.5]
    result = CliRunner().invoke(main, list(map(str, arguments)))
    assert result.exit_code == 0, result.stderr
    rows = json.loads(out.read_text())["categories"]["weave"]
    assert [row["name"] for row in rows] == [
        *("weave.pt", "1-NN", "K-means", "OC-SVM", "l2-AE", "VAE")
    ]
    assert all(0 <= row["overall"]["pixel_auroc"] <= 1 for row in rows)
    for name in ("weave.pt", "OC-SVM", "VAE"):
        assert name in result.stdout


def test_says_what_is_missing(
    stad_path: Path, data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("stpm.benchmarks.studies.baselines", "stpm.benchmarks.studies.shallow"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "sklearn.cluster", None)
    arguments = ["baselines", str(stad_path), "--data", str(data_root)]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 1
    assert "pip install 'stpm[baselines]'" in result.stderr
