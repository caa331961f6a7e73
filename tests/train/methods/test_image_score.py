"""The image's score against NumPy's sorting."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from stpm.runtime.errors import CheckpointError
from stpm.train.methods import configure, with_score
from stpm.train.methods.image_score import ImageScore

MAPS = np.random.default_rng(1).random((3, 40, 50), np.float32)


@pytest.mark.parametrize(
    ("kind", "count"),
    [("max", 1), ("top0.2%", 4), ("top0.05%", 1), ("top1%", 20), ("top100%", 2000)],
)
def test_score_is_the_mean_of_the_highest_pixels(kind: str, count: int) -> None:
    expected = np.sort(MAPS.reshape(3, -1), axis=1)[:, -count:].mean(axis=1)
    scores = ImageScore(kind).of(torch.from_numpy(MAPS))
    np.testing.assert_allclose(scores, expected, rtol=1e-6)


@pytest.mark.parametrize("kind", ["mean", "top%", "top0%", "top101%", "top1", "top-1%", ""])
def test_another_kind_is_refused(kind: str) -> None:
    with pytest.raises(CheckpointError, match=f"got the score {kind!r}, expected max, or topP%"):
        configure("stpm", (64, 64), {"score": kind})


@pytest.mark.parametrize("method", ["stpm", "rd", "stad"])
def test_a_config_changes_its_score_alone(method: str) -> None:
    config = configure(method, (64, 64))
    changed = with_score(config, "top0.2%")
    assert changed == replace(config, score="top0.2%")  # type: ignore[type-var]
    assert with_score(changed, config.to_dict()["score"]) == config


def test_a_method_with_a_score_of_its_own_is_refused() -> None:
    with pytest.raises(CheckpointError, match="spade does not score images by their maps"):
        with_score(configure("spade", (64, 64)), "max")
