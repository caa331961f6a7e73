"""The teacher's features of the training images, computed once and kept within a budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stpm.train.augment import Augmentation
from stpm.train.methods.contract import Network


class TeacherFeatures:
    """Images and their teacher's features, kept in FP16 up to a number of bytes.

    FP16 holds features to 5e-4 of their value, against bf16's 4e-3. The teacher itself runs in
    FP32. What does not fit is computed again for every batch. On a GPU the images are kept there
    too, where all fit.
    """

    def __init__(
        self,
        model: Network,
        images: NDArray[np.uint8],
        device: torch.device,
        targets: Callable[[Sequence[Tensor]], list[Tensor]],
    ) -> None:
        """Keep nothing yet; see `fill`.

        Args:
            model: whose teacher it is.
            images: uint8 (N,H,W,3).
            device: where the teacher runs and the features are kept.
            targets: makes what is kept of what the teacher gives, (N,C,h,w) each.
        """
        self._model = model
        self._keep = targets
        self._device = device
        self._images = torch.from_numpy(images)
        self._cache: list[Tensor] = []
        self.cached_count = 0

    def __len__(self) -> int:
        return len(self._images)

    @property
    def is_resident(self) -> bool:
        """Whether all images and features are on the device, so that an index there suffices."""
        return self.cached_count == len(self) and self._images.device.type == self._device.type

    def fill(self, size_bytes: int, batch_size: int, on_images: Callable[[int], None]) -> int:
        """Compute and keep as many features as fit; returns the bytes used.

        Args:
            size_bytes: the most to use.
            batch_size: images a forward pass.
            on_images: called with the number of images done since the last call.
        """
        probe = self._compute(torch.arange(1))
        per_image = sum(2 * level[0].numel() for level in probe)
        image_bytes = 0 if self._device.type == "cpu" else self._images.nbytes
        if per_image * len(self) + image_bytes <= size_bytes:
            self._images = self._images.to(self._device)
        else:
            image_bytes = 0
        count = min(len(self), size_bytes // per_image)
        self._cache = [
            torch.empty(
                (count, *level.shape[1:]), dtype=torch.float16, device=self._device
            ).contiguous(memory_format=torch.channels_last)
            for level in probe
            if count
        ]
        for start in range(0, count, batch_size):
            index = torch.arange(start, min(start + batch_size, count))
            for cache, level in zip(self._cache, self._compute(index), strict=True):
                cache[start : start + len(index)] = level
            on_images(len(index))
        self.cached_count = count
        return count * per_image + image_bytes

    def batch(self, index: Tensor, epoch: int) -> tuple[Tensor, ...]:  # noqa: ARG002
        """Return `pixels` and `targets` of the images of an index, the same in every epoch."""
        return self.pixels(index), *self.targets(index)

    def images(self, index: Tensor) -> Tensor:
        """Return the images of an index, uint8 (B,H,W,3), on the device."""
        return self._images[index.to(self._images.device)].to(self._device)

    def pixels(self, index: Tensor) -> Tensor:
        """Return the normalised images, float32 (B,3,H,W)."""
        normalised: Tensor = self._model.normalise(self.images(index))
        return normalised

    def targets(self, index: Tensor) -> list[Tensor]:
        """Return what is kept of the teacher's features, float16 (B,C_l,h_l,w_l) a level."""
        # Where all are cached, nothing has to wait for what the index holds.
        fresh = index >= self.cached_count
        if self.cached_count == len(self) or not fresh.any():
            return [cache[index.to(self._device)] for cache in self._cache]
        computed = self._compute(index[fresh])
        if fresh.all():
            return computed
        merged = []
        for cache, level in zip(self._cache, computed, strict=True):
            out = torch.empty(
                (len(index), *level.shape[1:]), dtype=level.dtype, device=self._device
            )
            out[~fresh] = cache[index[~fresh].to(self._device)]
            out[fresh] = level
            merged.append(out)
        return merged

    def _compute(self, index: Tensor) -> list[Tensor]:
        return self._targets_of(self.pixels(index))

    @torch.no_grad()
    def _targets_of(self, pixels: Tensor) -> list[Tensor]:
        return [kept.half() for kept in self._keep(self._model.teacher(pixels))]


class AugmentedFeatures(TeacherFeatures):
    """Images that are disturbed anew in every epoch, so that nothing of them can be kept."""

    def __init__(
        self,
        model: Network,
        images: NDArray[np.uint8],
        device: torch.device,
        targets: Callable[[Sequence[Tensor]], list[Tensor]],
        seed: int,
    ) -> None:
        """Fix the disturbances by a seed; see `TeacherFeatures` for the rest."""
        super().__init__(model, images, device, targets)
        self._augment = Augmentation(seed, model.input_size)

    def fill(self, size_bytes: int, batch_size: int, on_images: Callable[[int], None]) -> int:  # noqa: ARG002
        """Keep nothing; returns 0."""
        return 0

    def batch(self, index: Tensor, epoch: int) -> tuple[Tensor, ...]:
        """Disturb the images of an index; returns what `TeacherFeatures.batch` returns."""
        pixels: Tensor = self._model.normalise(self._augment(self.images(index), index, epoch))
        return pixels, *self._targets_of(pixels)
