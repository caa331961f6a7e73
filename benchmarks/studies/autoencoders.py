"""Reconstructing baselines: an l2 and a variational autoencoder of whole images.

Those that STAD's paper (arXiv 1911.02357, section 4) compares with; architecture and schedule are
ours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from stpm.runtime.backends import Outputs
from stpm.runtime.images.preprocess import resize
from stpm.train.evaluate import Scorer

LATENT_SIZE = 128
CHANNELS = (32, 64, 128, 128, 128)
"""Channels of the first stages, each of which halves the image; further ones repeat the last."""
SMALLEST_SIDE = 8
"""Pixels of the smallest map, which becomes one vector."""
LEARNING_RATE = 1e-3
BATCH_SIZE = 16


class Autoencoder(nn.Module):
    """A convolutional autoencoder through one vector, plain or variational."""

    def __init__(self, size: tuple[int, int], *, variational: bool) -> None:
        super().__init__()
        self.variational = variational
        (height, width), stages = size, 0
        while height % 2 == width % 2 == 0 and min(height, width) > SMALLEST_SIDE:
            height, width, stages = height // 2, width // 2, stages + 1
        widths = [3, *CHANNELS, *[CHANNELS[-1]] * stages][: stages + 1]
        pairs = list(pairwise(widths))
        down = [nn.Sequential(nn.Conv2d(a, b, 4, 2, 1), nn.LeakyReLU()) for a, b in pairs]
        up = [nn.Sequential(nn.LeakyReLU(), nn.ConvTranspose2d(b, a, 4, 2, 1)) for a, b in pairs]
        smallest = (height, width)
        codes = LATENT_SIZE * (2 if variational else 1)
        self.encoder = nn.Sequential(*down, nn.Conv2d(widths[-1], codes, smallest))
        self.decoder = nn.Sequential(
            nn.ConvTranspose2d(LATENT_SIZE, widths[-1], smallest), *reversed(up)
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Reconstruct x float (N,3,H,W); in training from a drawn code.

        Returns:
            The reconstruction, and the mean divergence of the codes from the normal distribution,
            0 where not variational.
        """
        if not self.variational:
            return self.decoder(self.encoder(x)), torch.zeros(())
        mean, log_variance = self.encoder(x).chunk(2, dim=1)
        spread = torch.randn_like(mean) * (log_variance / 2).exp() if self.training else 0
        divergence = (mean.square() + log_variance.exp() - 1 - log_variance).sum(dim=1).mean() / 2
        return self.decoder(mean + spread), divergence


def train_autoencoder(
    images: NDArray[np.uint8],
    epochs: int,
    seed: int,
    *,
    variational: bool,
    on_images: Callable[[int], None] = lambda _: None,
) -> Autoencoder:
    """Train on good images uint8 (N,H,W,3); squared errors are summed over an image."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = Autoencoder((images.shape[1], images.shape[2]), variational=variational)
        optimiser = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE)
        for _ in range(epochs):
            for index in torch.split(torch.randperm(len(images)), BATCH_SIZE):
                x = _pixels(images[index.numpy()])
                reconstruction, divergence = network(x)
                loss = (reconstruction - x).square().sum(dim=(1, 2, 3)).mean() + divergence
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                optimiser.step()
                on_images(len(index))
    return network.requires_grad_(False).eval()


def autoencoder_scorer(network: Autoencoder, size: tuple[int, int]) -> Scorer:
    """Score pixels by their squared error, and images by their highest pixel."""

    def score(images: Sequence[NDArray[np.uint8]]) -> Outputs:
        x = _pixels(np.stack([resize(image, size) for image in images]))
        maps = (network(x)[0] - x).square().sum(dim=1).numpy()
        return maps, maps.max(axis=(1, 2))

    return score


def _pixels(images: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
