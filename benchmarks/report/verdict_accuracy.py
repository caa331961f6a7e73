"""What a report says first about accuracy, thresholds and engines."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from stpm.benchmarks.measure.detection import Detection, detections, is_good
from stpm.benchmarks.records.accuracy import METRICS, Row
from stpm.benchmarks.records.paper import reference_figures
from stpm.benchmarks.records.result_file import Record
from stpm.benchmarks.report.tables_accuracy import one_engine_each
from stpm.benchmarks.report.verdict import Answer, Finding, KeyFigure, of_kind, worst

FOUND, HARDLY_FOUND = 0.95, 0.80
"""Shares of the defective parts that a threshold has to find, and below which it finds too few."""
SAME = 0.001
"""Difference of a metric up to which an accuracy counts as kept."""
PUBLISHED_MARGIN = 0.01
"""Below a published figure, up to which it counts as reached: seeds differ by as much."""
SURE = 0.025
"""Probability below which an excess of false alarms is no accident."""
TORCH = "torch"
MEASURE = "Measure it: stpm-bench accuracy NAME.pt NAME.stpm --data ROOT --gallery DIR --out FILE."


def accuracy_findings(contents: Sequence[Record]) -> list[Finding]:
    """Answer what results of kind "accuracy" can answer."""
    rows = list(accuracy_rows(contents))
    families = _families(rows)
    return [
        _found(rows),
        _kept(families),
        _agree(families),
        _published(rows),
        _alarms(rows),
        _verified(rows),
    ]


def accuracy_rows(contents: Sequence[Record]) -> Iterator[tuple[str, Row]]:
    """Yield every (category, row)."""
    for content in of_kind(contents, "accuracy"):
        for category, rows in content["categories"].items():
            yield from ((category, row) for row in rows)


def key_figures(contents: Sequence[Record]) -> list[KeyFigure]:
    """Return the figures of the first bundle of each category; the lowest of several categories."""
    first: dict[str, Row] = {}
    for category, row in accuracy_rows(contents):
        if category not in first or (is_bundle(row) and not is_bundle(first[category])):
            first[category] = row
    found = []
    decided = {c: row for c, row in first.items() if row["decisions"]}
    if decided:
        good, bad = (sum(c) for c in zip(*map(_counts, decided.values()), strict=True))
        alarms, hits = (sum(c) for c in zip(*map(_called, decided.values()), strict=True))
        source = _source(next(iter(decided.values())), next(iter(decided)), len(decided), "all")
        if bad:
            found.append(KeyFigure("Defective parts found", f"{hits} of {bad}", source))
        if good:
            found.append(KeyFigure("False alarms", f"{alarms} of {good}", f"good parts, {source}"))
    for metric in ("image_auroc", "aupro"):
        values = {c: row["overall"][metric] for c, row in first.items()}
        known = {c: value for c, value in values.items() if value is not None}
        if known:
            lowest = min(known, key=lambda c: known[c])
            label = METRICS[metric][0].upper() + METRICS[metric][1:]
            source = _source(first[lowest], lowest, len(known), "lowest")
            found.append(KeyFigure(label, f"{known[lowest]:.4f}", source))
    return found


def _source(row: Row, category: str, count: int, which: str) -> str:
    if count > 1:
        return f"all {count} categories" if which == "all" else f"{category}, {which} of {count}"
    return f"{row['name']}, {row['engine']} {row['precision']}"


def is_bundle(row: Row) -> bool:
    """Tell a row of a bundle from one of a checkpoint."""
    return bool(row["engine"] != TORCH)


def describe(row: Row) -> str:
    """Name a row in a line."""
    return f"{row['name']} on {row['engine']} in {row['precision']}"


def _counts(row: Row) -> tuple[int, int]:
    """Return the numbers of good and defective test images."""
    good = sum(is_good(image) for image in row["images"])
    return good, len(row["images"]) - good


def _called(row: Row) -> tuple[int, int]:
    """Return how many good and defective test images the threshold calls anomalous."""
    (good, bad), decisions = _counts(row), row["decisions"]
    if decisions is None:
        return 0, 0
    alarms, hits = decisions["false_alarm_rate"] or 0, decisions["detection_rate"] or 0
    return round(alarms * good), round(hits * bad)


Families = dict[tuple[str, str, int], list[Row]]
"""Rows of one model that have metrics, by category, name without precision, and number of test
images."""


def _families(rows: Sequence[tuple[str, Row]]) -> Families:
    found: Families = {}
    for category, row in rows:
        if all(row["overall"][name] is None for name in METRICS):
            continue
        stem = row["name"].rsplit(".", 1)[0].removesuffix(f"_{row['precision']}")
        found.setdefault((category, stem, row["image_count"]), []).append(row)
    return found


def _difference(row: Row, reference: Row) -> tuple[float, str]:
    """Return the largest difference between two rows, and a metric that has it."""
    pairs = {name: (row["overall"][name], reference["overall"][name]) for name in METRICS}
    differences = {
        name: abs(ours - theirs)
        for name, (ours, theirs) in pairs.items()
        if ours is not None and theirs is not None
    }
    name = max(differences, key=lambda n: differences[n])
    return differences[name], METRICS[name]


def _compare(row: Row, reference: Row) -> Answer:
    if _difference(row, reference)[0] <= SAME:
        return Answer.YES
    intervals = reference["intervals"].items()
    pairs = ((row["overall"][name], interval) for name, interval in intervals)
    inside = (low <= value <= high for value, (low, high) in pairs if value is not None)
    return Answer.CARE if all(inside) else Answer.NO


def _found(rows: Sequence[tuple[str, Row]]) -> Finding:
    """Judge the worst category: its calibrated thresholds, or 5% false alarms without one."""
    question = "Does it find the defects?"
    answers, details, shares = [], [], []
    for category, row in _first_of_each(rows):
        judged = [found for found in detections(row) if found.found.of]
        if not judged:
            continue
        own = judged[0] if row["calibration"] else judged[-2]
        share = own.found.count / own.found.of
        shares.append((share, category, own))
        answers.append(
            Answer.YES if share >= FOUND else Answer.CARE if share >= HARDLY_FOUND else Answer.NO
        )
        details.append(f"{category}, {describe(row)}, {_detection(own)}")
    if not shares:
        return Finding(question, Answer.OPEN, f"No defective part was scored. {MEASURE}")
    _, category, own = min(shares, key=lambda entry: entry[0])
    text = f"{category}, {_detection(own)}."
    if len(shares) > 1:
        text = f"The worst of {len(shares)}: {text}"
    return Finding(question, worst(answers), text, tuple(details))


def _first_of_each(rows: Sequence[tuple[str, Row]]) -> list[tuple[str, Row]]:
    """Return, for each category, its first engine of each model; see `one_engine_each`."""
    categories = dict.fromkeys(category for category, _ in rows)
    of_category = {c: [row for category, row in rows if category == c] for c in categories}
    return [(c, row) for c, found in of_category.items() for row in one_engine_each(found)]


def _detection(found: Detection) -> str:
    low, high = found.found.interval
    text = f"{found.at}: finds {found.found} defective parts (95% interval {low:.0%} to {high:.0%})"
    if found.regions.of:
        text += f" and {found.regions} defective regions"
    if found.false_alarms.of:
        text += f", rejects {found.false_alarms} good parts"
    return text


def _kept(families: Families) -> Finding:
    question = "Does the exported model keep the accuracy of the checkpoint?"
    pairs = [
        (category, row, reference)
        for (category, _, _), rows in families.items()
        for reference in [row for row in rows if not is_bundle(row)][:1]
        for row in rows
        if is_bundle(row)
    ]
    if not pairs:
        text = f"No checkpoint was measured together with its bundle. {MEASURE}"
        return Finding(question, Answer.OPEN, text)
    details = []
    for category, row, reference in pairs:
        difference, metric = _difference(row, reference)
        details.append(f"{category}, {describe(row)}: at most {difference:.1e}, in {metric}")
    answer = worst(_compare(row, reference) for _, row, reference in pairs)
    largest = max(_difference(row, reference)[0] for _, row, reference in pairs)
    text = (
        f"Over {_count(len(pairs), 'bundle and engine', 'bundles and engines')}, no metric differs "
        f"from the checkpoint's by more than {_short(largest)}{_LIMIT[answer]}."
    )
    return Finding(question, answer, text, tuple(details))


_LIMIT = {
    Answer.YES: f" (up to {SAME:g} counts as unchanged)",
    Answer.CARE: f": above {SAME:g}, but within the checkpoint's 95% interval",
    Answer.NO: ", outside the checkpoint's 95% interval",
}


def _agree(families: Families) -> Finding:
    question = "Do engines and precisions agree?"
    answers, details, largest, changed = [], [], 0.0, 0
    for (category, stem, count), rows in families.items():
        bundles = [row for row in rows if is_bundle(row)]
        if len(bundles) < 2:
            continue
        differences = [_difference(row, bundles[0]) for row in bundles[1:]]
        difference, metric = max(differences)
        split = _decided_differently(bundles)
        answers += [_compare(row, bundles[0]) for row in bundles[1:]]
        answers += [Answer.CARE] if split else []
        largest, changed = max(largest, difference), changed + split
        details.append(
            f"{category}, {stem}: {len(bundles)} runs differ by at most {_short(difference)} in "
            f"{metric}; decisions differ on {split} of {count} images"
        )
    if not answers:
        text = "Only one engine and precision was measured. " + MEASURE
        return Finding(question, Answer.OPEN, text)
    decisions = f"{changed} decisions differ" if changed else "every decision is the same"
    text = f"No metric differs by more than {_short(largest)}, and {decisions}."
    return Finding(question, worst(answers), text, tuple(details))


def _decided_differently(rows: Sequence[Row]) -> int:
    """Count the images that not every row calls the same, each by its own threshold."""
    calls: dict[str, set[bool]] = {}
    for row in rows:
        if row["calibration"]:
            threshold = row["calibration"]["image_threshold"]
            for image in row["images"]:
                calls.setdefault(image["name"], set()).add(image["score"] > threshold)
    return sum(len(found) > 1 for found in calls.values())


def _published(rows: Sequence[tuple[str, Row]]) -> Finding:
    question = "Is it as accurate as published?"
    answers, details = [], []
    for category, row in rows:
        for source, figures in reference_figures(category).items():
            for metric, published in figures.items():
                value = row["overall"][metric]
                if value is None:
                    continue
                answers.append(_reached(value, row["intervals"].get(metric), published))
                if answers[-1] is not Answer.YES:
                    details.append(
                        f"{category}, {describe(row)}: {METRICS[metric]} {value:.4f}, {source} "
                        f"{published:.4f}"
                    )
    if not answers:
        text = (
            "Nothing is published for these data (the papers cover only MVTec AD's "
            "categories), or the test set lacks good or defective parts."
        )
        return Finding(question, Answer.OPEN, text)
    reached = sum(answer is Answer.YES for answer in answers)
    text = (
        f"{reached} of {len(answers)} comparisons with the paper and its authors' code come "
        f"within {PUBLISHED_MARGIN:g} of the published figure or exceed it."
    )
    return Finding(question, worst(answers), text, tuple(details))


def _reached(value: float, interval: Sequence[float] | None, published: float) -> Answer:
    if value >= published - PUBLISHED_MARGIN:
        return Answer.YES
    return Answer.NO if interval and interval[1] < published else Answer.CARE


def _alarms(rows: Sequence[tuple[str, Row]]) -> Finding:
    question = "Do the thresholds keep the false-alarm rate?"
    answers, details, shares = [], [], []
    for category, row in rows:
        if not (row["calibration"] and row["decisions"]):
            continue
        asked = row["calibration"]
        low, high = asked["false_alarm_interval"]
        (good, bad), (alarms, hits) = _counts(row), _called(row)
        detected = row["decisions"]["detection_rate"]
        if detected is not None:
            shares.append(detected)
        if not good:
            continue
        answers.append(_within(alarms, good, high))
        details.append(
            f"{category}, {describe(row)}: requested {asked['false_alarm_rate']:.1%} (95% "
            f"interval {low:.1%} to {high:.1%}, from {asked['image_count']} good images), "
            f"observed {alarms} of {good} ({alarms / good:.1%})"
            + (f", found {hits} of {bad} defective" if bad else "")
        )
    if not answers:
        return Finding(
            question, Answer.OPEN, f"No threshold was measured on good images. {MEASURE}"
        )
    kept = sum(answer is Answer.YES for answer in answers)
    text = (
        f"{kept} of {_count(len(answers), 'threshold', 'thresholds')} gave no more false alarms on "
        "good test images than the calibration interval allows."
    )
    if shares:
        worst_share, best_share = (f"{share:.1%}" for share in (min(shares), max(shares)))
        to_best = f" to {best_share}" if worst_share != best_share else ""
        text += f" They find {worst_share}{to_best} of the defective parts."
    if kept < len(answers):
        text += " Calibrate with good images from the line's own camera and lighting."
    return Finding(question, worst(answers), text, tuple(details))


def _within(alarms: int, good: int, high: float) -> Answer:
    """Judge the alarms by the upper end of the interval, and by the binomial law beyond it."""
    if alarms <= high * good:
        return Answer.YES
    fewer = range(alarms)
    chance = 1 - sum(math.comb(good, k) * high**k * (1 - high) ** (good - k) for k in fewer)
    return Answer.NO if chance < SURE else Answer.CARE


def _verified(rows: Sequence[tuple[str, Row]]) -> Finding:
    question = "Are the engines verified?"
    bundles = [row for _, row in rows if is_bundle(row)]
    if not bundles:
        return Finding(question, Answer.OPEN, f"No bundle was measured. {MEASURE}")
    text = (
        f"{_count(len(bundles), 'bundle and engine', 'bundles and engines')}: each "
        "reproduced the bundle's golden images when it was opened; an engine that differs "
        "from FP32 torch by more than its tolerance is refused."
    )
    parities = {describe(row): row.get("parity") or {} for row in bundles}
    details = [
        f"{name}: at export, maps differed by {parity['map_difference']:.1e} and scores by "
        f"{parity['score_difference']:.1e}; allowed {parity['tolerance']:g}"
        for name, parity in parities.items()
        if "map_difference" in parity
    ]
    unverified = [name for name, parity in parities.items() if "map_difference" not in parity]
    if unverified:
        details += [f"{name}: exported on a machine that could not run it" for name in unverified]
        text += (
            f" Not compared at export: {len(unverified)}, with thresholds from FP32 torch; "
            "export on the machine that runs them."
        )
    return Finding(question, Answer.CARE if unverified else Answer.YES, text, tuple(details))


def _count(count: int, one: str, many: str) -> str:
    return f"{count} {one if count == 1 else many}"


def _short(difference: float) -> str:
    """Write a difference of metrics to the digits of the tables."""
    return f"{difference:.4f}" if difference >= 0.00005 else "0.00005"
