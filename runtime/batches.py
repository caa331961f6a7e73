"""Run an engine on any number of images, whatever batches and size its graph takes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stpm.runtime.backends import BulkEngine, Engine, Outputs
from stpm.runtime.bundle.manifest import InputContract
from stpm.runtime.errors import BackendError, DataError, StpmError
from stpm.runtime.forks import no_fork
from stpm.runtime.images.preprocess import resize, with_channels


def fit_input(image: NDArray[np.uint8], contract: InputContract) -> NDArray[np.uint8]:
    """Bring an image (H,W,1) or (H,W,3) to the graph's input: its size and channels.

    Raises:
        DataError: the graph resizes by itself and the image is not of the camera's size, or it
            takes grey and the image has colours.
    """
    if contract.resize == "graph" and image.shape[:2] != contract.size:
        raise DataError(
            f"got an image of {image.shape[0]}x{image.shape[1]} pixels, expected "
            f"{contract.size[0]}x{contract.size[1]}, for which the bundle was exported; "
            "export again with that --camera-size, or without it."
        )
    return resize(with_channels(image, contract.channels), contract.size)


def run_in_batches(
    engine: Engine,
    images: NDArray[np.uint8],
    contract: InputContract,
    *,
    scores_only: bool = False,
) -> Outputs:
    """Score any number of inputs (N,H,W,C), at least one, with a graph of limited batch.

    A last batch that is smaller than the graph's smallest is filled up and its surplus dropped.

    Args:
        engine: that scores.
        images: inputs.
        contract: of the graph.
        scores_only: leave out the maps where the engine can; they are then (N,0,0).

    Raises:
        DataError: there is no image.
        BackendError: the engine fails, or an output is not finite.
    """
    if not len(images):
        raise DataError("got no images, expected at least one; pass some images.")
    smallest, largest = contract.batch
    step = max(len(images), smallest) if isinstance(engine, BulkEngine) else largest
    outputs = []
    for start in range(0, len(images), step):
        batch = images[start : start + step]
        count = len(batch)
        if count < smallest:
            batch = np.concatenate([batch, np.repeat(batch[-1:], smallest - count, axis=0)])
        maps, scores = _run(engine, np.ascontiguousarray(batch), scores_only=scores_only)
        outputs.append((maps[:count], scores[:count]))
    anomaly_maps, pred_scores = (
        outputs[0] if len(outputs) == 1 else map(np.concatenate, zip(*outputs, strict=True))
    )
    if not (np.isfinite(anomaly_maps).all() and np.isfinite(pred_scores).all()):
        raise BackendError(
            "the engine returned a score or map that is not finite, expected finite numbers; "
            "export again in FP32."
        )
    return anomaly_maps, pred_scores


def _run(engine: Engine, batch: NDArray[np.uint8], *, scores_only: bool) -> Outputs:
    try:
        with no_fork():
            if scores_only and isinstance(engine, BulkEngine):
                return np.empty((len(batch), 0, 0), np.float32), engine.run_scores(batch)
            return engine.run(batch)
    except StpmError:
        raise
    except Exception as error:
        # The engines' exceptions share no base class but Exception.
        raise BackendError(
            f"the engine cannot score a batch of shape {batch.shape} "
            f"({' '.join(str(error).split())}); export again."
        ) from error
