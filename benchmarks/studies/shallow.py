"""Shallow baselines: one-class methods of scikit-learn on a teacher's dense descriptors.

Those that STAD's paper (arXiv 1911.02357, section 4) compares with. The numbers of vectors and
centres, the share of variance and nu are ours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors
from sklearn.svm import OneClassSVM
from torch import Tensor

from stpm.runtime.backends import Outputs
from stpm.runtime.images.preprocess import resize
from stpm.train.evaluate import Scorer
from stpm.train.methods import Network, interpolate_to
from stpm.train.methods.spade import pixel_features

Image = NDArray[np.uint8]
Vectors = NDArray[np.float32]
Distance = Callable[[Vectors], NDArray[Any]]
CENTRES = 10
VARIANCE_KEPT = 0.95
NU = 0.05
"""Share of the training vectors that may lie outside the one-class SVM's boundary."""


def nearest_neighbour(vectors: Vectors, seed: int) -> Distance:  # noqa: ARG001, nothing is drawn
    """Return the distance to the nearest training vector."""
    index = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(vectors)
    return lambda queries: index.kneighbors(queries)[0][:, 0]


def k_means(vectors: Vectors, seed: int) -> Distance:
    """Return the distance to the nearest of `CENTRES` centres."""
    means = KMeans(CENTRES, n_init=1, random_state=seed).fit(vectors)
    return lambda queries: means.transform(queries).min(axis=1)


def one_class_svm(vectors: Vectors, seed: int) -> Distance:
    """Return the negative score of a one-class SVM with Gaussian kernel, after PCA."""
    pca = PCA(VARIANCE_KEPT, svd_solver="full", random_state=seed).fit(vectors)
    svm = OneClassSVM(nu=NU, gamma="scale").fit(pca.transform(vectors))
    return lambda queries: -svm.score_samples(pca.transform(queries))


SHALLOW = {"1-NN": nearest_neighbour, "K-means": k_means, "OC-SVM": one_class_svm}


def describe(model: Network, images: Sequence[Image]) -> Tensor:
    """Describe images by all that the teacher gives, concatenated at its largest map's size.

    Args:
        model: whose teacher describes.
        images: uint8 (H,W,3) of any size.

    Returns:
        float32 (N,h,w,D).
    """
    batch = torch.from_numpy(np.stack([resize(image, model.input_size) for image in images]))
    with torch.inference_mode():
        levels = model.teacher(model.normalise(batch))
        return pixel_features(levels).permute(0, 2, 3, 1)


def training_vectors(model: Network, images: Iterable[Image], count: int, seed: int) -> Vectors:
    """Draw descriptors at random places, equally many from each image, float32 (M,D).

    Args:
        model: see `describe`.
        images: good images uint8 (H,W,3).
        count: from each image; all where it has fewer.
        seed: of the places.
    """
    rng = np.random.default_rng(seed)
    drawn = []
    for image in images:
        flat = describe(model, [image]).flatten(0, 2).numpy()
        drawn.append(flat[rng.permutation(len(flat))[:count]])
    return np.concatenate(drawn)


def shallow_scorer(model: Network, distance: Distance) -> Scorer:
    """Score pixels by a distance of their descriptors, and images by their highest pixel."""

    def score(images: Sequence[Image]) -> Outputs:
        maps = []
        for image in images:
            descriptors = describe(model, [image])
            height, width = descriptors.shape[1:3]
            distances = distance(descriptors.flatten(0, 2).numpy())
            grid = torch.from_numpy(np.asarray(distances, np.float32)).view(1, 1, height, width)
            maps.append(interpolate_to(model.input_size)(grid)[0, 0].numpy())
        stacked = np.stack(maps)
        return stacked, stacked.max(axis=(1, 2))

    return score
