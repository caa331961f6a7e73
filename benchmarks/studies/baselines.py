"""The baselines of STAD's paper on one category, evaluated like a checkpoint."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stpm.benchmarks.measure.accuracy import Candidate, measure
from stpm.benchmarks.records.accuracy import AccuracyRecord
from stpm.benchmarks.records.header import header
from stpm.benchmarks.records.result_file import checked
from stpm.benchmarks.studies.autoencoders import autoencoder_scorer, train_autoencoder
from stpm.benchmarks.studies.shallow import SHALLOW, shallow_scorer, training_vectors
from stpm.runtime.output.console import progress
from stpm.train.checkpoint import load_checkpoint
from stpm.train.datasets import find_category, open_category, read_images, take_share
from stpm.train.evaluate import torch_scorer
from stpm.train.methods import Network

RECONSTRUCTING = {"l2-AE": False, "VAE": True}
"""Whether each is variational."""


def baselines_result(
    checkpoint_path: Path,
    data: Path,
    *,
    category: str | None = None,
    every: int = 1,
    train_share: float = 1.0,
    vectors: int = 20_000,
    epochs: int = 50,
    seed: int = 0,
    teacher_weights: Path | None = None,
) -> AccuracyRecord:
    """Evaluate a checkpoint and the baselines on its descriptors and images.

    Args:
        checkpoint_path: whose teacher describes pixels for the shallow ones.
        data: root of a data set.
        category: of the data set; None takes the one that the checkpoint's name begins with.
        every: take every so many test images only.
        train_share: of the good images that the baselines learn from.
        vectors: that the shallow ones learn from, over all images.
        epochs: of the autoencoders.
        seed: of everything that is drawn.
        teacher_weights: for the authors' checkpoints.

    Returns:
        The content of a result file of kind "accuracy".

    Raises:
        CheckpointError, DataError: the checkpoint or an image cannot be used.
    """
    model = load_checkpoint(checkpoint_path, teacher_weights).model()
    name = category or find_category(checkpoint_path, data)
    found = open_category(data, name)
    _, good = read_images(take_share(found.good_images(), train_share, seed), model.input_size)
    samples = found.test_samples()[::every]
    candidates = [
        Candidate(checkpoint_path.name, "torch", "fp32", torch_scorer(model)),
        *_shallow(model, good, vectors, seed),
        *_reconstructing(good, epochs, seed),
    ]
    rows = []
    for candidate in candidates:
        with progress(candidate.name, len(samples)) as on_images:
            rows.append(measure(candidate, samples, on_images).to_dict())
    content = header("accuracy", [checkpoint_path]) | {
        "categories": {name: rows},
        "seeds": {name: []},
        "means": [],
        "gallery": {},
    }
    record: AccuracyRecord = checked(content)
    return record


def _shallow(
    model: Network, good: NDArray[np.uint8], vectors: int, seed: int
) -> Iterator[Candidate]:
    learnt = training_vectors(model, good, -(-vectors // len(good)), seed)
    for name, fit in SHALLOW.items():
        yield Candidate(name, "scikit-learn", "fp32", shallow_scorer(model, fit(learnt, seed)))


def _reconstructing(good: NDArray[np.uint8], epochs: int, seed: int) -> Iterator[Candidate]:
    size = (good.shape[1], good.shape[2])
    for name, variational in RECONSTRUCTING.items():
        with progress(f"{name}, {epochs} epochs", epochs * len(good)) as on_images:
            network = train_autoencoder(
                good, epochs, seed, variational=variational, on_images=on_images
            )
        yield Candidate(name, "torch", "fp32", autoencoder_scorer(network, size))
