"""SPADE: both searches against distances computed one by one, smoothing against scipy's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from stpm.runtime.errors import CheckpointError, StpmError
from stpm.train.checkpoint import load_checkpoint
from stpm.train.datasets import read_images
from stpm.train.methods import TeacherSource, configure, interpolate_to, spade
from stpm.train.methods.smoothing import gaussian_matrix
from stpm.train.methods.spade import Spade, SpadeConfig, pixel_features

faiss = pytest.importorskip("faiss", reason="the extra spade is not installed")


def model_and_images(path: Path, data_root: Path) -> tuple[Spade, torch.Tensor]:
    model = load_checkpoint(path).model()
    assert isinstance(model, Spade)
    paths = sorted((data_root / "weave/test/hole").iterdir())[:2]
    _, images = read_images(paths, model.input_size)
    return model, torch.from_numpy(images)


def test_smoothing_is_scipys() -> None:
    image = np.random.default_rng(0).random((24, 40))
    expected = gaussian_filter(image, 4.0, mode="reflect")
    rows, columns = (gaussian_matrix(size).double() for size in image.shape)
    got = rows @ torch.from_numpy(image) @ columns.T
    np.testing.assert_allclose(got.numpy(), expected, atol=1e-6)


def test_the_reference_is_every_distance_computed(spade_path: Path, data_root: Path) -> None:
    model, images = model_and_images(spade_path, data_root)
    maps, scores = model(images)
    *levels, last = model.teacher(model.normalise(images))
    pooled = last.double().mean((2, 3))
    image_distances = (pooled[:, None] - model.student.pooled.double()).square().sum(2)
    nearest = image_distances.sort(1)
    np.testing.assert_allclose(scores, nearest.values[:, :5].mean(1), rtol=1e-5)
    gallery = pixel_features([level.float() for level in model.student.levels()]).double()
    queries = pixel_features(levels).double()
    for i in range(2):
        vectors = gallery[nearest.indices[i, :5]].transpose(0, 1).flatten(1).T
        distances = torch.cdist(queries[i].flatten(1).T, vectors).square().amin(1)
        grid = distances.view(1, 1, *queries.shape[2:]).float()
        upsampled = interpolate_to(model.input_size)(grid)[0, 0].numpy()
        expected = gaussian_filter(upsampled, 4.0, mode="reflect")
        np.testing.assert_allclose(maps[i], expected, rtol=1e-3, atol=1e-5 * expected.max())


def test_both_searches_agree(spade_path: Path, data_root: Path) -> None:
    model, images = model_and_images(spade_path, data_root)
    reference = model(images)
    levels = model.teacher(model.normalise(images))
    products = model.score([levels], interpolate_to(model.input_size))
    for ours, theirs in zip(products, reference, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6 * float(theirs.max()))


def test_a_normal_image_of_the_gallery_is_nearest_to_itself(
    spade_path: Path, data_root: Path
) -> None:
    model, _ = model_and_images(spade_path, data_root)
    training = load_checkpoint(spade_path).training
    _, images = read_images([data_root / "weave/train/good" / training["train"][3]], (64, 64))
    _, pooled = model.describe(torch.from_numpy(images))
    assert int(model.nearest_images(pooled)[1][0, 0]) == 3


def test_weights_that_end_early_are_met_with_the_setting_that_fits_them(teacher_file: Path) -> None:
    source = TeacherSource(teacher_file)
    with pytest.raises(CheckpointError, match=r"layer4.*--set image-level=layer3\.$"):
        spade.METHOD.blank(SpadeConfig((64, 64)), spade.METHOD.recipes["paper"], source)
    config = SpadeConfig((64, 64), image_level="layer3")
    network, _ = spade.METHOD.blank(config, spade.METHOD.recipes["paper"], source)
    levels, pooled = network.describe(torch.zeros(1, 64, 64, 3, dtype=torch.uint8))
    assert [level.shape[1] for level in levels] == [64, 128, 256]
    torch.testing.assert_close(pooled, levels[-1].mean(dim=(2, 3)))


def test_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "faiss", None)
    with pytest.raises(StpmError, match=r"pip install 'stpm\[spade\]'"):
        spade._faiss()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"levels": "layer3,layer1"}, "expected the largest maps first"),
        ({"image-level": "layer5"}, "got image-level layer5, expected one of layer1, layer2"),
        ({"backbone": "squeezenet1_1"}, "got image-level layer4, .* for squeezenet1_1"),
        ({"neighbours": "0"}, "expected at least 1"),
        ({"backbone": "vgg"}, "got backbone 'vgg'"),
    ],
)
def test_refuses_what_it_cannot_build(settings: dict[str, str], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        configure("spade", (64, 64), settings)
