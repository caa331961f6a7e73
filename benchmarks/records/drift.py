"""How soon drift is found as it is kept: `stpm-bench drift`."""

from __future__ import annotations

from typing import Annotated, Literal, TypedDict

from stpm.benchmarks.records.accuracy import Interval
from stpm.benchmarks.records.header import NOT_EMPTY, Header


class AlarmShare(TypedDict):
    """Undisturbed runs that raised any alarm; `interval` by Clopper and Pearson, 95%."""

    level: float
    alarms: int
    interval: Interval


class Undisturbed(TypedDict):
    """Runs in which nothing changes.

    Attributes:
        what: the images are.
        runs: that were made.
        images: in each, after the calibration.
        shares: of the runs, by the level that was asked for.
        highest: log10 of the evidence that any test had at any time, of the worst run.
    """

    what: str
    runs: int
    images: int
    shares: Annotated[list[AlarmShare], NOT_EMPTY]
    highest: float


class Delays(TypedDict):
    """Images from the change to the alarm.

    Attributes:
        found: repetitions with an alarm after the change.
        quartiles: over all repetitions; None where it was not found in the time.
    """

    found: int
    quartiles: list[int | None]


class Disturbance(TypedDict):
    """A change, and how soon it is found.

    Attributes:
        after: images that are looked at after it.
        early: repetitions with an alarm before the change, which are left out.
        repetitions: that are left.
        delays: by test, and of the first of them as "any".
        evidence: by test, log10 in one repetition until its alarm, as (images since the change,
            value).
    """

    what: str
    after: int
    early: int
    repetitions: int
    delays: dict[str, Delays]
    evidence: dict[str, list[tuple[int, float]]]


class DriftRecord(Header):
    """A result of kind "drift".

    Attributes:
        level: odds of any false alarm in all the time.
        images: good ones, each of which was scored in `renditions` undisturbed ways.
        defects: defective ones.
        calibration: values that a test begins with.
        before: undisturbed images before a change.
    """

    kind: Literal["drift"]
    engine: str
    level: float
    images: int
    renditions: int
    defects: int
    calibration: int
    before: int
    undisturbed: list[Undisturbed]
    disturbances: list[Disturbance]
