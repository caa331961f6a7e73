"""What the report answers, on results made to give each answer."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest

from stpm.benchmarks.measure.detection import Share
from stpm.benchmarks.report.verdict import Answer, Finding, belong_together, summary, worst
from stpm.benchmarks.report.verdict_accuracy import accuracy_findings, key_figures
from stpm.benchmarks.report.verdict_speed import key_figures as speed_key_figures
from stpm.benchmarks.report.verdict_speed import speed_findings

Row = dict[str, Any]
GOOD, BAD = 20, 30


def row(name: str, engine: str = "onnxruntime", precision: str = "fp32", **changes: Any) -> Row:
    """A row with 2 false alarms of 20, asked for 5% (1% to 12%), and every defect found."""
    scores = [("good", 0.1)] * (GOOD - 2) + [("good", 0.6)] * 2 + [("hole", 0.9)] * BAD
    images = [{"name": f"{kind}/{i}.png", "score": s} for i, (kind, s) in enumerate(scores)]
    calibration = {
        "image_threshold": 0.5,
        "pixel_threshold": 0.5,
        "false_alarm_rate": 0.05,
        "image_count": 40,
        "false_alarm_interval": [0.01, 0.12],
    }
    decisions = {"false_alarm_rate": 2 / GOOD, "detection_rate": 1.0}
    made = {
        "name": name,
        "engine": engine,
        "precision": precision,
        "seed": 0,
        "parity": {"map_difference": 2e-6, "score_difference": 1e-6, "tolerance": 1e-4},
        "image_count": GOOD + BAD,
        "overall": {
            "image_auroc": 0.95,
            "pixel_auroc": 0.98,
            "aupro": 0.94,
            "pro_rescaled": 0.95,
        },
        "intervals": {
            "image_auroc": [0.9, 0.99],
            "pixel_auroc": [0.97, 0.99],
            "aupro": [0.92, 0.96],
        },
        "calibration": calibration,
        "decisions": decisions,
        "images": images,
    }
    return made | changes


def checkpoint(**changes: Any) -> Row:
    return row("part.pt", "torch", calibration=None, decisions=None, parity=None, **changes)


def overall(**values: float) -> dict[str, float]:
    return row("part.stpm")["overall"] | values


def accuracy(*rows: Row, category: str = "part") -> dict[str, Any]:
    return {"kind": "accuracy", "categories": {category: list(rows)}}


def answers(*rows: Row, category: str = "part") -> dict[str, Finding]:
    found = accuracy_findings([accuracy(*rows, category=category)])
    names = ("found", "kept", "agree", "published", "alarms", "verified")
    return dict(zip(names, found, strict=True))


@pytest.mark.parametrize(
    ("image_auroc", "answer"),
    [(0.9505, Answer.YES), (0.9512, Answer.CARE), (0.91, Answer.CARE), (0.89, Answer.NO)],
)
def test_accuracy_is_kept_within_a_limit_or_the_interval(
    image_auroc: float, answer: Answer
) -> None:
    bundle = row("part_fp16.stpm", precision="fp16", overall=overall(image_auroc=image_auroc))
    found = answers(checkpoint(), bundle)["kept"]
    assert found.answer is answer
    assert f"more than {abs(image_auroc - 0.95):.4f}" in found.text
    assert "image AUROC" in found.details[0]


def test_a_bundle_is_compared_with_its_own_checkpoint_only() -> None:
    other = checkpoint(overall=overall(image_auroc=0.5)) | {"name": "part_seed1.pt"}
    found = answers(checkpoint(), other, row("part.stpm"))
    assert found["kept"].answer is Answer.YES
    assert len(found["kept"].details) == 1


def test_without_a_checkpoint_or_a_second_engine_it_is_open() -> None:
    found = answers(row("part.stpm"))
    assert found["kept"].answer is found["agree"].answer is Answer.OPEN
    assert "stpm-bench accuracy" in found["kept"].text


def test_decisions_that_differ_between_engines_are_counted() -> None:
    other = row("part.stpm", "openvino")
    for image in other["images"][:3]:
        image["score"] = 0.7
    found = answers(row("part.stpm"), other)["agree"]
    assert found.answer is Answer.CARE
    assert "3 decisions differ" in found.text
    assert answers(row("part.stpm"), row("part.stpm", "openvino"))["agree"].answer is Answer.YES


def test_published_figures_are_for_their_category_only() -> None:
    assert answers(row("part.stpm"))["published"].answer is Answer.OPEN
    # Paper: pixel AUROC 0.988, AUPRO 0.951; authors' code: 0.9879, 1.0000, rescaled 0.9592.
    reached = row("bottle.stpm", overall=overall(image_auroc=1.0, pixel_auroc=0.987, aupro=0.945))
    found = answers(reached, category="bottle")["published"]
    assert (found.answer, found.details) == (Answer.YES, ())
    assert found.text.startswith("5 of 5 ")
    found = answers(row("bottle.stpm"), category="bottle")["published"]
    assert found.answer is Answer.NO  # 0.95, at most 0.99, against 1
    assert [detail.split(": ")[1] for detail in found.details] == [
        "AUPRO 0.9400, paper 0.9510",
        "image AUROC 0.9500, authors' code 1.0000",
    ]


@pytest.mark.parametrize(
    ("alarms", "answer"),
    # Of 20 at a rate of 12%: 2.4 on average; 3 or more in 43% of draws, 7 or more in 0.9%.
    [(0, Answer.YES), (2, Answer.YES), (3, Answer.CARE), (7, Answer.NO)],
)
def test_false_alarms_are_judged_by_the_interval_of_the_calibration(
    alarms: int, answer: Answer
) -> None:
    decisions = {"false_alarm_rate": alarms / GOOD, "detection_rate": 0.6}
    found = answers(row("part.stpm", decisions=decisions))["alarms"]
    assert found.answer is answer
    expected = (
        f"requested 5.0% (95% interval 1.0% to 12.0%, from 40 good images), observed {alarms}"
    )
    assert expected in found.details[0]
    assert found.details[0].endswith("found 18 of 30 defective")
    assert "They find 60.0% of the defective parts." in found.text


def test_engines_are_verified_with_their_parity() -> None:
    found = answers(row("part.stpm"))["verified"]
    assert found.answer is Answer.YES
    assert "maps differed by 2.0e-06 and scores by 1.0e-06; allowed 0.0001" in found.details[0]
    assert answers(checkpoint())["verified"].answer is Answer.OPEN


def test_key_figures_take_the_lowest_category_and_all_parts() -> None:
    contents = [
        accuracy(checkpoint(), row("part.stpm")),
        accuracy(row("nut.stpm", overall=overall(image_auroc=0.7)), category="nut"),
    ]
    found = {figure.label: (figure.value, figure.source) for figure in key_figures(contents)}
    assert found == {
        "Defective parts found": ("60 of 60", "all 2 categories"),
        "False alarms": ("4 of 40", "good parts, all 2 categories"),
        "Image AUROC": ("0.7000", "nut, lowest of 2"),
        "AUPRO": ("0.9400", "part, lowest of 2"),
    }
    assert next(iter(found)) == "Defective parts found"


def test_the_paper_is_compared_at_its_size_with_hardware_named(latency_content: str) -> None:
    content = json.loads(latency_content)
    assert speed_findings([content])[0].answer is Answer.OPEN
    case = content["cases"][0]
    case |= {"image_size": [256, 256], "map_size": [256, 256]}
    case["latency_ms"]["p50"] = 25.0
    content["environment"]["processor"] |= {"usable_cores": 4, "model": "Some CPU"}
    found = speed_findings([content])[0]
    assert found.answer is Answer.CARE
    assert "25.0 ms" in found.text
    assert "4 x Some CPU" in found.text
    assert "2.5 times the paper's 10 ms on an RTX 2080 Ti" in found.text
    assert speed_key_figures([content])[0].value == "25.0 ms"
    case["latency_ms"]["p50"] = 5.0
    assert speed_findings([content])[0].answer is Answer.YES


def test_unsteady_runs_are_named(latency_content: str) -> None:
    content = json.loads(latency_content)
    for case in content["cases"]:
        case["steadiness"]["flags"] = []
        case["rounds_ms"] = [[1.0] * 100]
    assert speed_findings([content])[2].answer is Answer.YES
    content["cases"][1]["steadiness"]["flags"] = ["drifting", "noisy"]
    found = speed_findings([content])[2]
    assert found.answer is Answer.CARE
    assert found.details == (f"{content['cases'][1]['name']}: drifting, noisy",)
    content["cases"][0]["rounds_ms"] = [[1.0] * 99]
    assert "In 1 of them fewer than 100 times were taken" in speed_findings([content])[2].text


def test_only_the_right_peers_count(peers_content: str) -> None:
    content = json.loads(peers_content)
    found = speed_findings([content])[1]
    assert found.answer is Answer.YES
    assert "Of 1 programs with the same maps, 1 take longer, 0 take less time" in found.text
    assert [detail for detail in found.details if "does not count" in detail]
    assert found.details[-1] == "anomalib: left out, is not installed"
    content["peers"][2]["correct"] = True
    assert speed_findings([content])[1].answer is Answer.CARE


def _nothing(content: dict[str, Any]) -> None:
    """Both are the same."""


def _other_hash(content: dict[str, Any]) -> None:
    content["models"] = dict.fromkeys(content["models"], "0" * 64)


def _other_machine(content: dict[str, Any]) -> None:
    content["environment"]["processor"]["model"] = "another"


def _changed_code(content: dict[str, Any]) -> None:
    content["environment"]["commit"] = {"id": "0" * 40, "with_changes": True}


@pytest.mark.parametrize(
    ("change", "answer", "detail"),
    [
        (_nothing, Answer.YES, None),
        (_other_hash, Answer.NO, "weave.stpm is not the same file"),
        (_other_machine, Answer.CARE, "measured on 2 machines"),
        (_changed_code, Answer.CARE, "measured with uncommitted code changes: 1 of 2 result files"),
    ],
)
def test_results_belong_together_by_hash_machine_and_code(
    change: Callable[[dict[str, Any]], None],
    answer: Answer,
    detail: str | None,
    latency_content: str,
) -> None:
    first = json.loads(latency_content)
    first["environment"]["commit"] = {"id": "1" * 40, "with_changes": False}
    second = copy.deepcopy(first)
    change(second)
    found = belong_together([first, second])
    assert found.answer is answer
    assert detail is None or any(text.startswith(detail) for text in found.details)


@pytest.mark.parametrize(
    ("letters", "expected"),
    [
        ("yy", "Ships: yes to all 2 questions that were measured."),
        ("yco", "Ships, with care: \u201c1?\u201d. Not measured: \u201c2?\u201d."),
        ("oy", "Cannot say whether it ships. Not measured: \u201c0?\u201d."),
        ("ony", "Does not ship, because of \u201c1?\u201d. Not measured: \u201c0?\u201d."),
        (
            "ncyn",
            "Does not ship, because of \u201c0?\u201d, \u201c3?\u201d. With care: \u201c1?\u201d.",
        ),
        ("", "Cannot say whether it ships."),
    ],
)
def test_the_summary_says_whether_it_ships(letters: str, expected: str) -> None:
    of = {"y": Answer.YES, "c": Answer.CARE, "n": Answer.NO, "o": Answer.OPEN}
    findings = [Finding(f"{i}?", of[letter], "") for i, letter in enumerate(letters)]
    assert summary(findings) == expected


def test_the_worst_answer_counts() -> None:
    assert worst([Answer.YES, Answer.OPEN, Answer.CARE]) is Answer.CARE
    assert worst([]) is Answer.OPEN


@pytest.mark.parametrize(
    ("missed", "answer"), [(0, Answer.YES), (1, Answer.YES), (2, Answer.CARE), (7, Answer.NO)]
)
def test_what_is_found_is_judged_at_the_models_own_threshold(missed: int, answer: Answer) -> None:
    images = row("part.stpm")["images"]
    for image in images[GOOD : GOOD + missed]:
        image["score"] = 0.4
    found = answers(row("part.stpm", images=images))["found"]
    assert found.answer is answer
    low, high = Share(BAD - missed, BAD).interval
    assert found.text == (
        f"part, calibrated for 5.0% false alarms: finds {BAD - missed} of {BAD} defective parts "
        f"(95% interval {low:.0%} to {high:.0%}), rejects 2 of {GOOD} good parts."
    )


def test_the_worst_category_decides_what_is_found() -> None:
    images = row("part.stpm")["images"]
    missing = [image | {"score": 0.1} for image in images]
    contents = [
        accuracy(row("part.stpm")),
        accuracy(row("nut.stpm", images=missing), category="nut"),
    ]
    found = accuracy_findings(contents)[0]
    assert found.answer is Answer.NO
    assert found.text.startswith(
        "The worst of 2: nut, calibrated for 5.0% false alarms: finds 0 of"
    )
    assert len(found.details) == 2


def test_without_defective_parts_nothing_is_judged() -> None:
    images = row("part.stpm")["images"][:GOOD]
    assert answers(row("part.stpm", images=images))["found"].answer is Answer.OPEN


def test_a_checkpoint_is_judged_at_five_percent_false_alarms() -> None:
    found = answers(checkpoint())["found"]
    assert found.answer is Answer.YES
    assert found.text.startswith("part, up to 5% false alarms: finds 30 of 30")


def test_an_engine_that_never_ran_at_export_is_taken_with_care() -> None:
    never_ran = row("part.stpm", "torch-cuda", parity={"tolerance": 3e-2})
    found = answers(row("part.stpm"), never_ran)["verified"]
    assert found.answer is Answer.CARE
    assert "Not compared at export: 1" in found.text
    assert any("torch-cuda" in detail and "could not run" in detail for detail in found.details)
