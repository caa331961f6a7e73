"""Has the world changed? An anytime-valid test of scores and light against the calibration's.

A conformal test martingale bets against the hypothesis that new values come in the same way as the
old ones. While that holds, the odds that it ever multiplies its capital by 1 / level are at most
the level, however long it runs (Ville's inequality).

Source: Vovk, Gammerman & Shafer, "Algorithmic Learning in a Random World", 2nd edition, chapter 8;
    the simple jumper: Vovk et al., "Retrain or not retrain: conformal test martingales for
    change-point detection", arXiv 2102.10439.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left, bisect_right, insort
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stpm.runtime.bundle.image_statistics import STATISTICS, image_statistics
from stpm.runtime.errors import DataError

LEVEL = 1e-3
"""Odds of a false alarm of one test in all its time, by default."""
SLOPES = (-2.0, -1.0, 0.0, 1.0, 2.0)
"""Bets on lower or higher values: the factor of a p-value is 1 + slope (p - 1/2)."""
SPREADS = (-0.5, 0.5, 1.0)
"""Bets on values that scatter less or more: the factor is 1 + weight (12 (p - 1/2)^2 - 1)."""
POWER = 7
"""Of the bets on values beyond nearly all: the factors are 8 p^7 and 8 (1 - p)^7."""
JUMP = 0.01
"""Share of the capital that is spread anew over the bets at each value."""
MOST_KEPT = 1 << 17
"""Values that are kept; of more every second one in rising order goes. From then on a p-value is
exact to 1 / 65,536 only."""
TESTS = ("score", *STATISTICS)
_SEED = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1


def bet_factors(p: float) -> list[float]:
    """Return by what each bet multiplies its capital at a p-value; over all of them its mean is 1.

    Args:
        p: in [0, 1].
    """
    middle = p - 0.5
    spread = 12 * middle * middle - 1
    return [
        *(1 + slope * middle for slope in SLOPES),
        *(1 + weight * spread for weight in SPREADS),
        *((POWER + 1) * end**POWER for end in (p, 1 - p)),
    ]


BETS = len(bet_factors(0.5))


@dataclass(frozen=True)
class DriftState:
    """What a test knows.

    Attributes:
        log10_evidence: of the capital; 3 speaks a thousand to one against an undisturbed line.
        alarm: whether it has ever reached 1 / level.
    """

    log10_evidence: float
    alarm: bool


class DriftMonitor:
    """Tests one value an image; the port is in runtime/c/src/drift.cpp.

    p-values are ranks among all values before, the calibration's among them, so that they are
    independent and uniform while nothing changes: a fixed reference would not be, since all of its
    ranks share its chance. Capital enters bit by bit, by 1 / (1 + ln t), so that a change is found
    as well after a million images as after ten.
    """

    def __init__(self, reference: Sequence[float], level: float = LEVEL) -> None:
        """Begin a test.

        Args:
            reference: values of the calibration, in any order; may be empty.
            level: odds of a false alarm in all the time that it runs, in (0, 1).

        Raises:
            DataError: the level is outside, or a value is not finite.
        """
        if not 0 < level < 1 or not all(map(math.isfinite, reference)):
            raise DataError(
                f"got a level of {level} and {len(reference)} values, expected a level above "
                "0 and below 1, and finite values; correct them."
            )
        self._limit = -math.log10(level)
        self._kept = array("d", sorted(reference))  # a quarter of a list's memory
        self._capital = [0.0] * BETS
        self._log_scale = 0.0  # of the capital, natural: it would leave a float's range
        self._time = 0
        self._random = _SEED
        self._alarm = False

    def update(self, value: float) -> DriftState:
        """Take the next value; DataError where it is not finite."""
        if not math.isfinite(value):
            raise DataError(
                f"got the value {value}, expected a finite one; check how it is measured."
            )
        p = self._p_value(value)
        before, self._time = 1 / (1 + math.log1p(self._time)), self._time + 1
        reserve = 1 / (1 + math.log1p(self._time))
        entering = (before - reserve) * math.exp(-self._log_scale) / BETS
        capital = [part + entering for part in self._capital]
        spread = JUMP * sum(capital) / BETS
        self._capital = [
            ((1 - JUMP) * part + spread) * factor
            for part, factor in zip(capital, bet_factors(p), strict=True)
        ]
        total = sum(self._capital)
        if total > 1e100:
            self._capital = [part / total for part in self._capital]
            self._log_scale += math.log(total)
            total = 1.0
        evidence = self._log_scale + math.log(total + reserve * math.exp(-self._log_scale))
        log10_evidence = evidence / math.log(10)
        self._alarm = self._alarm or log10_evidence >= self._limit
        return DriftState(log10_evidence, self._alarm)

    def _p_value(self, value: float) -> float:
        """Rank a value among those before, equal ones at random, and keep it."""
        kept = self._kept
        low, high = bisect_left(kept, value), bisect_right(kept, value)
        p = (low + self._uniform() * (high - low + 1)) / (len(kept) + 1)
        insort(kept, value)
        if len(kept) > MOST_KEPT:
            del kept[::2]
        return p

    def _uniform(self) -> float:
        """Return the next number in [0, 1) of SplitMix64, the same in C."""
        self._random = (self._random + 0x9E3779B97F4A7C15) & _MASK
        z = self._random
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
        return ((z ^ (z >> 31)) >> 11) / (1 << 53)


class Drift:
    """Tests the scores of a camera, and the light and focus of its images."""

    def __init__(
        self,
        scores: Sequence[float],
        statistics: Mapping[str, Sequence[float]],
        level: float = LEVEL,
    ) -> None:
        """Begin the tests.

        Args:
            scores: of the calibration's good images.
            statistics: of these images, by name; one that is missing begins with the first images
                that are seen.
            level: odds of any false alarm in all the time that they run.
        """
        each = level / len(TESTS)
        references = {"score": scores} | {name: statistics.get(name, ()) for name in STATISTICS}
        self._tests = {name: DriftMonitor(values, each) for name, values in references.items()}
        self.states: dict[str, DriftState] = {}

    def update(self, score: float, image: NDArray[np.uint8]) -> dict[str, float | list[str]]:
        """Take an image uint8 (H,W,1) or (H,W,3) and its score.

        Returns:
            The decimal logarithm of the evidence by test, and `alarms`, the names of the tests
            that have found a change.
        """
        values = {"score": score} | image_statistics(image)
        self.states = {name: test.update(values[name]) for name, test in self._tests.items()}
        alarms = [name for name, state in self.states.items() if state.alarm]
        return {name: round(state.log10_evidence, 3) for name, state in self.states.items()} | {
            "alarms": alarms
        }
