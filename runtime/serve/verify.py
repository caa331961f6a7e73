"""Holds a server's answers for the golden images to the bundle's tolerance and thresholds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stpm.runtime.backends import Outputs
from stpm.runtime.batches import run_in_batches
from stpm.runtime.bundle.archive import Bundle, Golden
from stpm.runtime.bundle.parity import Parity, compare
from stpm.runtime.detector import Detector
from stpm.runtime.errors import ParityError
from stpm.runtime.replay import map_score_of
from stpm.runtime.serve.answers import ANOMALY_MAP, PER_IMAGE, served_threshold, served_warning
from stpm.runtime.serve.clients import Client


@dataclass(frozen=True)
class Verified:
    """How a server stood against a bundle.

    Attributes:
        image_count: golden images sent.
        parity: largest differences to the golden maps and scores.
        threshold: that it serves.
        engines: of the bundle, whose thresholds these are.
    """

    image_count: int
    parity: Parity
    threshold: float
    engines: tuple[str, ...]


@dataclass
class _Served:
    """A model on a server in the place of an engine; keeps what it answered."""

    client: Client
    model: str
    version: str
    answers: list[dict[str, NDArray[Any]]] = field(default_factory=list)

    def run(self, images: NDArray[np.uint8]) -> Outputs:
        answer = self.client.ask(self.model, self.version, images)
        self.answers.append(answer)
        return answer[ANOMALY_MAP], answer["pred_score"].reshape(-1)

    def layer_precisions(self) -> dict[str, str]:
        return {}

    def built_with(self) -> dict[str, str]:
        return {}


def verify(
    client: Client, bundle: Bundle, model: str, version: str = "", engine: str | None = None
) -> Verified:
    """Send a bundle's golden images to a server, and check all that comes back.

    Args:
        client: of the server.
        bundle: that it should be serving.
        model: the name there.
        version: there; "" takes the server's choice.
        engine: whose thresholds it must serve; None takes any of the bundle's.

    Raises:
        BackendError: the server cannot be reached, refuses, or has no such model.
        ParityError: a map, a score, a threshold or a verdict is none of the bundle's.
    """
    golden = bundle.golden()
    served = _Served(client, model, version)
    outputs = run_in_batches(served, golden.images, bundle.manifest.input)
    parity = min(compare(*expected, *outputs) for expected in _expected(bundle, golden, engine))
    tolerance = bundle.manifest.tolerance
    if not parity.holds(tolerance):
        raise ParityError(
            f"{model}: differs from the golden maps by {parity.map_difference:.2g} of their "
            f"maximum and from the scores by {parity.score_difference:.2g}, expected at most "
            f"{tolerance:.2g}; serve {bundle.path}, or choose the model version made from "
            "it."
        )
    threshold, engines = _thresholds(served.answers, bundle, model, engine)
    return Verified(len(golden.images), parity, threshold, engines)


def _expected(bundle: Bundle, golden: Golden, engine: str | None) -> Iterator[Outputs]:
    """Return what the golden images' maps are with the engines' weights of regions of interest.

    Golden maps are of images as they lie, so that those of aligned ones are computed here, which
    needs an engine and OpenCV.
    """
    maps, views = golden.anomaly_maps, None
    if bundle.manifest.scoring.align is not None:
        detector = Detector(bundle, engine)
        inputs, views = detector.align(detector.prepare(list(golden.images)))
        maps, _ = detector.infer(inputs)
    for name, record in bundle.manifest.engines.items():
        if engine not in (None, name):
            continue
        map_score = map_score_of(bundle, record.calibration.roi_weights)
        if map_score is None:
            yield maps, golden.pred_scores
            continue
        sizes = [bundle.manifest.input.size] * len(golden.images)
        weighted, roi_scores = map_score(maps, sizes, views)
        yield weighted, roi_scores.max(axis=1)


def _thresholds(
    answers: Sequence[dict[str, NDArray[Any]]], bundle: Bundle, model: str, engine: str | None
) -> tuple[float, tuple[str, ...]]:
    """Return the image threshold that all answers have, and the engines that it may be of."""
    stacked = {
        name: np.concatenate([answer[name].reshape(-1) for answer in answers]) for name in PER_IMAGE
    }
    if not np.array_equal(stacked["is_anomalous"], stacked["pred_score"] > stacked["threshold"]):
        raise ParityError(
            f"{model}: a verdict does not match its score and threshold; serve {bundle.path} again."
        )
    records = bundle.manifest.engines
    wanted = {name: r for name, r in records.items() if engine in (None, name)}
    engines = tuple(
        name
        for name, record in wanted.items()
        if (stacked["threshold"] == served_threshold(record.calibration.image_threshold)).all()
        and (
            stacked["pixel_threshold"] == served_threshold(record.calibration.pixel_threshold)
        ).all()
        and np.array_equal(
            stacked["is_anomalous"] | stacked["is_warned"],
            stacked["pred_score"] > served_warning(record.calibration),
        )
    )
    got = float(stacked["threshold"][0])
    if not engines:
        raise ParityError(
            f"{model}: serves the threshold {got:.6g}, expected that of "
            f"{' or '.join(wanted) or engine} in {bundle.path}; serve that bundle, or choose "
            "another --engine."
        )
    return got, engines
