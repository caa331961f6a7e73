"""What `Detector.batch` takes: several images, never one image for its rows."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from stpm.runtime.detector import Detector
from stpm.runtime.errors import DataError


@pytest.fixture(scope="module")
def detector(bundle_path: Path) -> Detector:
    return Detector(bundle_path, "onnxruntime")


@pytest.mark.parametrize(
    "one",
    [
        np.zeros((64, 64, 3), np.uint8),
        np.zeros((64, 64), np.uint8),
        "part.png",
        Path("part.png"),
        Image.fromarray(np.zeros((64, 64, 3), np.uint8)),
        io.BytesIO(),
        b"part.png",
        None,
        7,
    ],
    ids=lambda one: type(one).__name__,
)
def test_a_batch_of_one_image_itself_is_refused(detector: Detector, one: Any) -> None:
    with pytest.raises(DataError) as error:
        detector.batch(one)
    assert str(error.value) == (
        f"batch got one {type(one).__name__}, expected images such as a list of them; call "
        "detector(image), or batch([image])."
    )


def test_an_array_of_images_is_a_batch(detector: Detector) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), np.uint8)
    scores = [result.score for result in detector.batch(images)]
    assert len(set(scores)) == 3
    np.testing.assert_allclose(scores, [detector(image).score for image in images], rtol=1e-4)
