"""Choose images by a seed: a share of them, and those that are held out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from stpm.runtime.errors import DataError

Item = TypeVar("Item")
SHARE_STREAM = 1
"""Makes the choice of a share independent of the split, which has the same seed."""


def take_share(items: Sequence[Item], share: float, seed: int) -> list[Item]:
    """Choose a share of the items at random, in their order; a smaller share is part of a larger.

    Args:
        items: to choose from.
        share: in (0, 1], of which the count is rounded up.
        seed: of the permutation.
    """
    order = np.random.default_rng((seed, SHARE_STREAM)).permutation(len(items))
    # Rounded first: 0.1 * 30 is a little more than 3.
    count = int(np.ceil(round(len(items) * share, 6)))
    return [items[i] for i in sorted(order[:count])]


def split_held_out(count: int, share: float, seed: int) -> tuple[list[int], list[int]]:
    """Split indices into training and held-out ones, as the authors' code does with scikit-learn.

    Args:
        count: how many images there are.
        share: of them to hold out, rounded up.
        seed: of the permutation.

    Returns:
        Training indices and held-out indices, each in ascending order.

    Raises:
        DataError: fewer than two images.
    """
    if count < 2:
        raise DataError(
            f"got {count} good image, expected at least 2, one of which is held out; add images."
        )
    held_out = min(int(np.ceil(count * share)), count - 1)
    order = np.random.default_rng(seed).permutation(count)
    return sorted(order[held_out:].tolist()), sorted(order[:held_out].tolist())
