"""How soon does a station notice that the world has changed, and how often in vain?

Every image is scored once in each look; streams are drawn from these values. A stream whose
calibration and images are drawn from one pool alike is undisturbed by construction: a stream of
other good images, over and over, would rightly be told from the calibration's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stpm.benchmarks.measure.detection import Share
from stpm.benchmarks.records.drift import Delays, Disturbance, DriftRecord, Undisturbed
from stpm.benchmarks.records.header import header
from stpm.benchmarks.records.result_file import checked
from stpm.benchmarks.studies.drift_images import GAINS, Array, Look, Pools, measure_pools
from stpm.runtime.detector import Detector
from stpm.runtime.errors import DataError
from stpm.runtime.live.drift import TESTS, DriftMonitor
from stpm.runtime.output.console import progress

LEVELS = (0.001, 0.01, 0.1)
"""At which undisturbed runs are judged."""
RENDITIONS = 3
STEP, SLOW = 1000, 2000
"""Images that are looked at after a sudden and after a slow change."""
FLICKER = 0.08
"""Standard deviation of a light that flickers, as a share."""
DEFECTIVE = 0.1
"""Share of the parts of a bad batch that are defective."""
POINTS = 40
"""Of a curve of evidence."""
DIM, BLURRED, TINTED = Look(gain=0.8), Look(blur=1.0), Look(tint=0.1)

Stream = Callable[[Pools, np.random.Generator], Array]
"""Draws what comes after a change, (images, tests)."""


@dataclass(frozen=True)
class Plan:
    """How much is repeated.

    Attributes:
        level: odds of any false alarm of a station, in all its time.
        calibration: good images that its tests begin with.
        before: undisturbed images before a change.
        repetitions: of each change.
        short_runs, short_images: undisturbed.
        long_runs, long_images: undisturbed.
        seed: of all that is drawn.
    """

    level: float = 1e-3
    calibration: int = 100
    before: int = 500
    repetitions: int = 100
    short_runs: int = 1000
    short_images: int = 500
    long_runs: int = 10
    long_images: int = 100_000
    seed: int = 0


def draw(pool: Array, count: int, random: np.random.Generator) -> Array:
    """Draw rows of a pool with replacement."""
    return pool[random.integers(len(pool), size=count)]


def _in_light(pools: Pools, gains: Array, random: np.random.Generator) -> Array:
    """Draw a good image for each share of the light, at one of the two nearest of `GAINS`."""
    place = np.interp(gains, GAINS, np.arange(len(GAINS)))
    level = np.floor(place + random.random(len(gains))).astype(int).clip(0, len(GAINS) - 1)
    drawn: Array = pools.gains[level, random.integers(pools.gains.shape[1], size=len(gains))]
    return drawn


def _dimmed(pools: Pools, random: np.random.Generator) -> Array:
    return _in_light(pools, np.full(STEP, DIM.gain), random)


def _blurred(pools: Pools, random: np.random.Generator) -> Array:
    return draw(pools.looks[BLURRED], STEP, random)


def _tinted(pools: Pools, random: np.random.Generator) -> Array:
    return draw(pools.looks[TINTED], STEP, random)


def _bad_batch(pools: Pools, random: np.random.Generator) -> Array:
    stream = draw(pools.still, STEP, random)
    is_bad = random.random(STEP) < DEFECTIVE
    stream[is_bad] = draw(pools.defects, int(is_bad.sum()), random)
    return stream


def _dimming(pools: Pools, random: np.random.Generator) -> Array:
    return _in_light(pools, np.linspace(1, DIM.gain, SLOW), random)


def _flickering(pools: Pools, random: np.random.Generator) -> Array:
    gains = random.normal(1, FLICKER, STEP).clip(GAINS[0], GAINS[-1])
    return _in_light(pools, gains, random)


CHANGES: dict[str, Stream] = {
    "light dimmed by 20%": _dimmed,
    f"lens out of focus, blur of {BLURRED.blur:g} pixel": _blurred,
    f"a batch of another tint, red -{TINTED.tint:.0%} and blue +{TINTED.tint:.0%}": _tinted,
    f"a bad batch, {DEFECTIVE:.0%} defective": _bad_batch,
    f"light dims by 20% over {SLOW:,} images": _dimming,
    f"light flickers by {FLICKER:.0%}, its mean as before": _flickering,
}


def drift_result(
    bundle: Path,
    good: Sequence[Path],
    bad: Sequence[Path] = (),
    plan: Plan | None = None,
    engine: str | None = None,
) -> DriftRecord:
    """Measure false alarms and delays, and return the content of a result file.

    Args:
        bundle: whose scores are tested.
        good: images of good parts that its model has not seen in training.
        bad: of defective ones; without any there is no bad batch.
        plan: None takes the defaults.
        engine: of the bundle; None takes the fastest.

    Raises:
        DataError: an image cannot be read, or there are too few.
    """
    plan = plan or Plan()
    if len(good) < 20:
        raise DataError(f"got {len(good)} good images, expected 20 or more; add some to --good.")
    detector = Detector(bundle, engine)
    with progress("scoring", len(good) + len(bad)) as on_images:
        pools = measure_pools(
            detector, good, bad, (BLURRED, TINTED), RENDITIONS, plan.seed, on_images
        )
    is_grey = detector.bundle.manifest.input.channels == 1
    impossible = ([] if bad else [_bad_batch]) + ([_tinted] if is_grey else [])
    kept = {name: stream for name, stream in CHANGES.items() if stream not in impossible}
    with progress("streams", 3 + len(kept), "parts") as on_parts:
        undisturbed = []
        for runs in _undisturbed_plans(pools, plan):
            undisturbed.append(_undisturbed(*runs, plan))
            on_parts(1)
        disturbances = []
        for number, (name, stream) in enumerate(kept.items()):
            random = np.random.default_rng((plan.seed, number))
            disturbances.append(_disturbance(name, stream, pools, plan, random))
            on_parts(1)
    content = header("drift", [bundle]) | {
        "engine": detector.engine_name,
        "level": plan.level,
        "images": len(good),
        "renditions": RENDITIONS,
        "defects": len(bad),
        "calibration": plan.calibration,
        "before": plan.before,
        "undisturbed": undisturbed,
        "disturbances": disturbances,
    }
    record: DriftRecord = checked(content)
    return record


def highest_evidence(calibration: Array, stream: Array) -> float:
    """Return the highest log10 of the evidence that any test has at any time."""
    return max(max(_evidence(calibration[:, i], stream[:, i].tolist())) for i in range(len(TESTS)))


def _evidence(calibration: Array, values: Sequence[float]) -> Iterator[float]:
    monitor = DriftMonitor(calibration.tolist())
    return (monitor.update(value).log10_evidence for value in values)


def _limit(level: float) -> float:
    """Return the log10 of the evidence at which a test alarms; all share the level."""
    return math.log10(len(TESTS) / level)


Run = Callable[[np.random.Generator], tuple[Array, Array]]
"""Draws the values of a calibration, and a stream of which nothing is disturbed."""


def _undisturbed_plans(pools: Pools, plan: Plan) -> list[tuple[str, int, int, Run]]:
    def drawn(images: int) -> Run:
        return lambda random: (
            draw(pools.still, plan.calibration, random),
            draw(pools.still, images, random),
        )

    def split(random: np.random.Generator) -> tuple[Array, Array]:
        shuffled = random.permutation(pools.unaltered)
        half = len(shuffled) // 2
        return shuffled[:half], shuffled[half:]

    count = len(pools.unaltered) - len(pools.unaltered) // 2
    again = "drawn again and again, with a camera's noise"
    return [
        ("real images, each once, in random order", plan.short_runs, count, split),
        (again, plan.short_runs, plan.short_images, drawn(plan.short_images)),
        (again, plan.long_runs, plan.long_images, drawn(plan.long_images)),
    ]


def _undisturbed(what: str, runs: int, images: int, run: Run, plan: Plan) -> Undisturbed:
    random = np.random.default_rng((plan.seed, images))
    highest = np.array([highest_evidence(*run(random)) for _ in range(runs)])
    counts = {level: int((highest >= _limit(level)).sum()) for level in LEVELS}
    return {
        "what": what,
        "runs": runs,
        "images": images,
        "shares": [
            {"level": level, "alarms": alarms, "interval": Share(alarms, runs).interval}
            for level, alarms in counts.items()
        ],
        "highest": float(highest.max()),
    }


def _disturbance(
    what: str, stream: Stream, pools: Pools, plan: Plan, random: np.random.Generator
) -> Disturbance:
    """Repeat a change; each test runs until its alarm."""
    limit, before = _limit(plan.level), plan.before
    found: list[list[float]] = []
    curves: dict[str, list[tuple[int, float]]] = {}
    early = after = 0
    for _ in range(plan.repetitions):
        calibration = draw(pools.still, plan.calibration, random)
        changed = stream(pools, random)
        after = len(changed)
        values = np.concatenate([draw(pools.still, before, random), changed])
        courses = [
            until_alarm(calibration[:, i], values[:, i].tolist(), limit) for i in range(len(TESTS))
        ]
        at = [len(c) - before if c[-1] >= limit else math.inf for c in courses]
        if min(at) <= 0:
            early += 1
            continue
        found.append(at)
        curves = curves or dict(
            zip(TESTS, (_curve(course, before) for course in courses), strict=True)
        )
    return _summary(what, np.array(found).reshape(-1, len(TESTS)), after, early, curves)


def until_alarm(calibration: Array, values: Sequence[float], limit: float) -> list[float]:
    """Return the log10 of a test's evidence after each value, up to the first at the limit."""
    course = []
    for evidence in _evidence(calibration, values):
        course.append(evidence)
        if evidence >= limit:
            break
    return course


def _curve(course: Sequence[float], before: int) -> list[tuple[int, float]]:
    step = max(1, len(course) // POINTS)
    places = sorted({*range(0, len(course), step), len(course) - 1})
    return [(place + 1 - before, round(course[place], 3)) for place in places]


def _summary(
    what: str, found: Array, after: int, early: int, curves: dict[str, Any]
) -> Disturbance:
    columns = {name: found[:, i] for i, name in enumerate(TESTS)}
    columns["any"] = found.min(axis=1)
    return {
        "what": what,
        "after": after,
        "early": early,
        "repetitions": len(found),
        "delays": {name: _delays(column) for name, column in columns.items()},
        "evidence": curves,
    }


def _delays(column: Array) -> Delays:
    if not len(column):
        return {"found": 0, "quartiles": [None, None, None]}
    # A quantile that is one of the values: between two, one of which may be infinite, is none.
    quartiles = np.quantile(column, [0.25, 0.5, 0.75], method="inverted_cdf")
    return {
        "found": int((column < math.inf).sum()),
        "quartiles": [int(value) if value < math.inf else None for value in quartiles],
    }
