"""Any number of images on a graph of limited batch."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from stpm.runtime.backends import Outputs
from stpm.runtime.batches import run_in_batches
from stpm.runtime.bundle.archive import InputContract
from stpm.runtime.errors import BackendError, DataError

Images = NDArray[np.uint8]


def noise(*shape: int) -> Images:
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


class SumEngine:
    """Scores an image by the sum of its pixels, and records the sizes of its batches.

    The surpluses are added to the first pixel and to the score of a batch's last image.
    """

    def __init__(self, *, pixel: float = 0.0, score: float = 0.0) -> None:
        self.batches: list[int] = []
        self._surplus = np.float32(pixel), np.float32(score)

    def run(self, images: Images) -> Outputs:
        assert images.flags.c_contiguous
        self.batches.append(len(images))
        maps = images.sum(axis=3).astype(np.float32)
        scores = maps.sum(axis=(1, 2))
        maps[-1, 0, 0] += self._surplus[0]
        scores[-1] += self._surplus[1]
        return maps, scores

    def layer_precisions(self) -> dict[str, str]:
        return {}

    def built_with(self) -> dict[str, str]:
        return {}


@pytest.mark.parametrize(
    ("limits", "count", "batches"),
    [
        ((1, 1), 3, [1, 1, 1]),
        ((1, 4), 3, [3]),
        ((1, 4), 4, [4]),
        ((1, 4), 9, [4, 4, 1]),
        ((4, 4), 1, [4]),
        ((4, 4), 6, [4, 4]),
        ((2, 4), 5, [4, 2]),
        ((2, 4), 7, [4, 3]),
    ],
)
def test_batches_fit_the_graph(limits: tuple[int, int], count: int, batches: list[int]) -> None:
    engine, images = SumEngine(), noise(count, 3, 2, 3)
    maps, scores = run_in_batches(engine, images[:, ::-1], InputContract((3, 2), limits))
    assert engine.batches == batches
    np.testing.assert_array_equal(maps, images[:, ::-1].sum(axis=3))
    np.testing.assert_array_equal(scores, images.sum(axis=(1, 2, 3)))


class BulkSumEngine(SumEngine):
    """Takes any number of images, and gives scores without maps."""

    def run_scores(self, images: Images) -> NDArray[np.float32]:
        return self.run(images)[1]


@pytest.mark.parametrize(("count", "batches"), [(9, [9]), (1, [2]), (2, [2])])
def test_an_engine_of_many_batches_gets_all_at_once(count: int, batches: list[int]) -> None:
    images, contract = noise(count, 3, 2, 3), InputContract((3, 2), (2, 4))
    for scores_only in (False, True):
        engine = BulkSumEngine()
        maps, scores = run_in_batches(engine, images, contract, scores_only=scores_only)
        assert engine.batches == batches
        assert maps.shape == ((count, 0, 0) if scores_only else (count, 3, 2))
        np.testing.assert_array_equal(scores, images.sum(axis=(1, 2, 3)))


def test_a_score_alone_must_be_finite(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BackendError, match="a score or map that is not finite"):
        run_in_batches(
            BulkSumEngine(score=np.inf),
            noise(5, 3, 2, 3),
            InputContract((3, 2), (1, 4)),
            scores_only=True,
        )


def test_errors_of_ours_pass_through(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: SumEngine, __: Images) -> Outputs:
        raise DataError("got green images, expected red ones; paint them.")

    monkeypatch.setattr(SumEngine, "run", refuse)
    with pytest.raises(DataError, match=r"^got green images, expected red ones; paint them\.$"):
        run_in_batches(SumEngine(), noise(2, 3, 2, 3), InputContract((3, 2), (1, 4)))


def test_no_images_are_refused() -> None:
    with pytest.raises(DataError, match="got no images"):
        run_in_batches(SumEngine(), noise(0, 3, 2, 3), InputContract((3, 2), (1, 4)))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", ["pixel", "score"])
def test_outputs_that_are_not_finite_are_refused(place: str, value: float) -> None:
    contract = InputContract((3, 2), (1, 4))
    with pytest.raises(BackendError, match="a score or map that is not finite"):
        run_in_batches(SumEngine(**{place: value}), noise(5, 3, 2, 3), contract)


def test_filling_is_dropped_even_when_it_is_not_finite() -> None:
    contract = InputContract((3, 2), (4, 4))
    _, scores = run_in_batches(SumEngine(score=np.nan), noise(3, 3, 2, 3), contract)
    np.testing.assert_array_equal(scores, noise(3, 3, 2, 3).sum(axis=(1, 2, 3)))


def test_failure_of_an_engine_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: SumEngine, __: Images) -> Outputs:
        raise RuntimeError("out of memory\n  in layer 3\n")

    monkeypatch.setattr(SumEngine, "run", fail)
    expected = r"batch of shape \(2, 3, 2, 3\) \(out of memory in layer 3\); export again\."
    with pytest.raises(BackendError, match=expected):
        run_in_batches(SumEngine(), noise(2, 3, 2, 3), InputContract((3, 2), (1, 4)))
