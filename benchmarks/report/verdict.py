"""The questions that a report answers first, each with what the answer rests on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal, overload

from stpm.benchmarks.records.accuracy import AccuracyRecord
from stpm.benchmarks.records.device import DeviceRecord
from stpm.benchmarks.records.result_file import Record
from stpm.benchmarks.records.speed import LatencyRecord, PeersRecord


class Answer(StrEnum):
    """How a question was answered, the best first."""

    YES = "yes"
    CARE = "with care"
    NO = "no"
    OPEN = "not measured"


@dataclass(frozen=True)
class Finding:
    """A question, its answer in a sentence or two, and details, a line each."""

    question: str
    answer: Answer
    text: str
    details: tuple[str, ...] = ()


@dataclass(frozen=True)
class KeyFigure:
    """A figure that stands for the rest, and what it is of."""

    label: str
    value: str
    source: str


def worst(answers: Iterable[Answer]) -> Answer:
    """Return the worst of answers that were given; `OPEN` where there are none."""
    given = [answer for answer in answers if answer is not Answer.OPEN]
    return max(given, key=list(Answer).index, default=Answer.OPEN)


@overload
def of_kind(contents: Iterable[Record], kind: Literal["accuracy"]) -> list[AccuracyRecord]: ...
@overload
def of_kind(contents: Iterable[Record], kind: Literal["latency"]) -> list[LatencyRecord]: ...
@overload
def of_kind(contents: Iterable[Record], kind: Literal["peers"]) -> list[PeersRecord]: ...
@overload
def of_kind(contents: Iterable[Record], kind: Literal["device"]) -> list[DeviceRecord]: ...
def of_kind(contents: Iterable[Record], kind: str) -> list[Any]:
    """Return the records of one kind."""
    return [content for content in contents if content["kind"] == kind]


def summary(findings: Sequence[Finding]) -> str:
    """State the result: whether it ships, what stops it or asks for care, what was not measured.

    Args:
        findings: the first decides; where it is not measured, nothing ships.
    """
    by_answer = {answer: [f for f in findings if f.answer is answer] for answer in Answer}
    stops, doubts = by_answer[Answer.NO], by_answer[Answer.CARE]
    yes, missing = by_answer[Answer.YES], by_answer[Answer.OPEN]
    care = [f"With care: {_asked(doubts)}."] if doubts else []
    if stops:
        parts = [f"Does not ship, because of {_asked(stops)}.", *care]
    elif not findings or findings[0].answer is Answer.OPEN:
        parts = ["Cannot say whether it ships.", *care]
    elif doubts:
        parts = [f"Ships, with care: {_asked(doubts)}."]
    else:
        parts = [f"Ships: yes to all {len(yes)} questions that were measured."]
    parts += [f"Not measured: {_asked(missing)}."] if missing else []
    return " ".join(parts)


def _asked(findings: Sequence[Finding]) -> str:
    return ", ".join(f"\u201c{finding.question}\u201d" for finding in findings)


def belong_together(contents: Sequence[Record]) -> Finding:
    """Ask whether the results are of the same models, machine and code."""
    question = "Do the results belong together?"
    hashes: dict[str, set[str]] = {}
    for content in contents:
        for name, sha256 in content["models"].items():
            hashes.setdefault(name, set()).add(sha256)
    details = [
        f"{name} is not the same file in all results: {len(found)} different hashes"
        for name, found in hashes.items()
        if len(found) > 1
    ]
    mixed = bool(details)
    machines = {machine(content) for content in contents}
    if len(machines) > 1:
        details.append(f"measured on {len(machines)} machines: {'; '.join(sorted(machines))}")
    commits = [content["environment"]["commit"] for content in contents]
    changed = sum(bool(commit and commit["with_changes"]) for commit in commits)
    if changed:
        details.append(f"measured with uncommitted code changes: {_of(changed, len(contents))}")
    if len({commit["id"] if commit else None for commit in commits}) > 1:
        details.append("measured with different commits of the code")
    noted = sum(commit is None for commit in commits)
    if noted:
        details.append(
            "measured with an installed package, whose commit is unknown: "
            f"{_of(noted, len(contents))}"
        )
    if mixed:
        text = "The same name refers to different files."
        return Finding(question, Answer.NO, text, tuple(details))
    if len(details) > bool(noted):
        text = "The models are the same, but machine or code differ."
        return Finding(question, Answer.CARE, text, tuple(details))
    text = f"{_of(len(contents), len(contents))}: the same models, by hash, on the same machine."
    return Finding(question, Answer.YES, text, tuple(details))


def _of(count: int, total: int) -> str:
    return f"{count} of {total} result file{'s' if total > 1 else ''}"


def machine(content: Record) -> str:
    """Name the hardware of a result."""
    found = content["environment"]
    gpus = [gpu["name"] for gpu in found["gpus"]]
    processor = f"{found['processor']['usable_cores']} x {found['processor']['model']}"
    return ", ".join([processor, *gpus])
