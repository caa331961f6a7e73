"""Evaluate anything that scores images on a labelled test set."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from stpm.runtime.backends import Outputs
from stpm.runtime.errors import DataError, about
from stpm.runtime.images.preprocess import FULL_DEPTH, resize, with_channels
from stpm.runtime.output.console import note
from stpm.train.checkpoint import Checkpoint
from stpm.train.datasets import GOOD, Sample, read_image, read_mask
from stpm.train.methods import Network
from stpm.train.methods.stpm.network import Stpm
from stpm.train.metrics import Metrics, evaluate_maps

Scorer = Callable[[Sequence[NDArray[np.uint8]]], Outputs]
"""Scores images uint8 (H,W,3) of any size."""
BATCH_SIZE = 8
"""Images in memory at a time; camera images are large."""


@dataclass(frozen=True)
class Evaluation:
    """Scores of a test set.

    Attributes:
        overall: over all images.
        by_kind: the good images against one kind of defect each.
        samples: the test images.
        pred_scores: float32 (N,), in the samples' order.
        anomaly_maps: float32 (N,h,w).
        masks: bool (N,h,w) at the maps' size; None for data without masks.
        has_pixels: bool (N,), which images the pixel metrics are of: not defective ones whose
            mask is black.
    """

    overall: Metrics
    by_kind: dict[str, Metrics]
    samples: Sequence[Sample]
    pred_scores: NDArray[np.float32]
    anomaly_maps: NDArray[np.float32]
    masks: NDArray[np.bool_] | None
    has_pixels: NDArray[np.bool_]

    @property
    def anomalous(self) -> NDArray[np.bool_]:
        """Which samples are labelled as defective, bool (N,)."""
        return np.array([sample.is_anomalous for sample in self.samples])


def torch_scorer(model: Network) -> Scorer:
    """Return the FP32 reference: Pillow's resize on the host, then the network in torch."""

    def score(images: Sequence[NDArray[np.uint8]]) -> Outputs:
        batch = np.stack(
            [resize(with_channels(image, model.channels), model.input_size) for image in images]
        )
        with torch.inference_mode():
            anomaly_maps, pred_scores = model(torch.from_numpy(batch))
        return anomaly_maps.numpy(), pred_scores.numpy()

    return score


def checkpoint_scorer(checkpoint: Checkpoint) -> Scorer:
    """Return the FP32 reference of a checkpoint: one trained on tiles scores images whole."""
    model = checkpoint.model()
    if not checkpoint.tile:
        return torch_scorer(model)
    assert isinstance(model, Stpm)  # --tile is refused for others

    def score(images: Sequence[NDArray[np.uint8]]) -> Outputs:
        outputs = [torch_scorer(model.at_size(image.shape[:2]))([image]) for image in images]
        anomaly_maps, pred_scores = map(np.concatenate, zip(*outputs, strict=True))
        return anomaly_maps, pred_scores

    return score


def score_files(
    scorer: Scorer,
    paths: Iterable[Path],
    on_images: Callable[[int], None] = lambda _: None,
    bit_depth: int = FULL_DEPTH,
) -> Outputs:
    """Read and score images, a few at a time.

    Args:
        scorer: see `Scorer`.
        paths: the images, see `read_image`; at least one.
        on_images: called with the number of images done since the last call.
        bit_depth: see `load_image`.

    Raises:
        DataError: a file cannot be decoded.
    """
    outputs = scored_batches(scorer, list(paths), on_images, bit_depth)
    anomaly_maps, pred_scores = map(np.concatenate, zip(*outputs, strict=True))
    return anomaly_maps, pred_scores


def scored_batches(
    scorer: Scorer,
    paths: Sequence[Path],
    on_images: Callable[[int], None],
    bit_depth: int,
    size: int = BATCH_SIZE,
) -> Iterator[Outputs]:
    """Read and score images, `size` of them at a time; see `score_files`."""
    for start in range(0, len(paths), size):
        batch = paths[start : start + size]
        yield _scored(scorer, batch, [read_image(path, bit_depth) for path in batch])
        on_images(len(batch))


def _scored(scorer: Scorer, paths: Sequence[Path], images: Sequence[NDArray[np.uint8]]) -> Outputs:
    try:
        return scorer(images)
    except DataError:
        for path, image in zip(paths, images, strict=True):  # which of them is it?
            with about(path):
                scorer([image])
        raise


def evaluate(
    scorer: Scorer,
    samples: Sequence[Sample],
    on_images: Callable[[int], None] = lambda _: None,
    bit_depth: int = FULL_DEPTH,
) -> Evaluation:
    """Score a test set and compute its metrics, overall and by kind of defect.

    Masks are brought to the maps' size by nearest neighbour, as in the authors' code.

    Args:
        scorer: see `Scorer`.
        samples: test images. Of a test set that lacks good or defective ones there is no image
            AUROC, and a note names the folder.
        on_images: called with the number of images done since the last call.
        bit_depth: see `load_image`.

    Raises:
        DataError: an image or mask cannot be used, or there are no images.
    """
    if not samples:
        raise DataError("the test set has no images; check its folder.")
    anomalous = np.array([sample.is_anomalous for sample in samples])
    missing = missing_kind(samples)
    if missing:
        note(f"{missing}; metrics that need both kinds are left out")
    paths = [sample.path for sample in samples]
    anomaly_maps, scores = score_files(scorer, paths, on_images, bit_depth)
    kinds = np.array([sample.kind for sample in samples])
    masks, has_pixels = None, np.zeros(len(samples), np.bool_)
    if all(sample.mask is not None for sample in samples if sample.is_anomalous):
        size = (anomaly_maps.shape[1], anomaly_maps.shape[2])
        masks = np.stack([read_mask(sample, size) for sample in samples])
        has_pixels = ~anomalous | masks.any(axis=(1, 2))
        _note_black_masks([s for s, has in zip(samples, has_pixels, strict=True) if not has])

    def metrics(rows: NDArray[np.bool_]) -> Metrics:
        of_images = evaluate_maps(anomalous[rows], scores[rows])
        pixels = rows & has_pixels
        if masks is None or not (pixels & anomalous).any():
            return of_images
        of_pixels = evaluate_maps(
            anomalous[pixels], scores[pixels], masks[pixels], anomaly_maps[pixels]
        )
        return replace(of_pixels, image_auroc=of_images.image_auroc)

    by_kind = {
        str(kind): metrics((kinds == kind) | (kinds == GOOD))
        for kind in np.unique(kinds[anomalous])
    }
    overall = metrics(np.ones(len(samples), np.bool_))
    return Evaluation(overall, by_kind, samples, scores, anomaly_maps, masks, has_pixels)


def missing_kind(samples: Sequence[Sample]) -> str:
    """Say what a test set lacks to be of good and defective images; "" if it has both."""
    kinds = {sample.is_anomalous for sample in samples}
    if kinds == {True, False}:
        return ""
    found, missing = ("defective", GOOD) if kinds == {True} else (GOOD, "a kind of defect")
    return (
        f"{samples[0].path.parent.parent}: got {len(samples)} {found} images alone, expected a "
        f"folder of {missing} beside them"
    )


def _note_black_masks(samples: Sequence[Sample]) -> None:
    if samples:
        more = f" and {len(samples) - 1} more" if len(samples) > 1 else ""
        note(
            f"{samples[0].mask}{more}: no pixel of a defective image is marked; it counts in the "
            "image metrics, and is left out of the pixel metrics"
        )
