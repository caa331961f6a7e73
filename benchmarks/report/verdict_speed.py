"""What a report says first about time, and about other programs for the same task."""

from __future__ import annotations

from collections.abc import Sequence

from stpm.benchmarks.records.paper import latency_figures
from stpm.benchmarks.records.result_file import Record
from stpm.benchmarks.records.speed import Case, LatencyRecord, Peer, PeersRecord, Rate
from stpm.benchmarks.report.tables_speed import method_ratios
from stpm.benchmarks.report.verdict import Answer, Finding, KeyFigure, machine, of_kind

PAPER_SIZE = [256, 256]
SINGLE = "single_stream"
PAPER_CARD = "RTX 2080 Ti"
ENOUGH_QUERIES = 100
"""Below, a 99th percentile says no more than the maximum."""
MEASURE = "Measure it: stpm-bench latency NAME.stpm --out FILE."


def speed_findings(contents: Sequence[Record]) -> list[Finding]:
    """Answer what results of the kinds "latency" and "peers" can answer."""
    return [
        _beside_paper(contents),
        *_beside_methods(contents),
        _beside_peers(contents),
        _trusted(contents),
    ]


def key_figures(contents: Sequence[Record]) -> list[KeyFigure]:
    """Return the shortest time of one image, of the paper's size if there is one."""
    cases = [case for content in of_kind(contents, "latency") for case in _single(content)]
    if not cases:
        return []
    best = min([c for c in cases if c["image_size"] == PAPER_SIZE] or cases, key=_median)
    height, width = best["image_size"]
    source = f"median, {height}x{width}, {best['bundle']}, {best['engine']}"
    return [KeyFigure("Time per image", f"{_median(best):.1f} ms", source)]


def _single(content: LatencyRecord) -> list[Case]:
    """Return the cases of one image after the other."""
    cases = content["cases"]
    return [case for case in cases if case["scenario"] == SINGLE and case["batch"] == 1]


def _median(case: Case | Peer) -> float:
    return float(case["latency_ms"]["p50"])


def _beside_paper(contents: Sequence[Record]) -> Finding:
    published = latency_figures()["STPM"]
    question = f"Is it as fast as the paper's {published:g} ms?"
    found = [
        (case, content)
        for content in of_kind(contents, "latency")
        for case in _single(content)
        if case["image_size"] == case.get("map_size", PAPER_SIZE) == PAPER_SIZE
    ]
    if not found:
        text = f"No single image of 256x256, the paper's size, was timed. {MEASURE}"
        return Finding(question, Answer.OPEN, text)
    case, content = min(found, key=lambda pair: _median(pair[0]))
    median = _median(case)
    times = f"{median / published:.1f} times" if median > published else "within"
    text = (
        f"{median:.1f} ms (median, {case['bundle']} on {case['engine']}, {machine(content)}), "
        f"{times} the paper's {published:g} ms on an {PAPER_CARD}: the hardware differs."
    )
    details = [_rate_detail(name, rate) for name, rate in content["rates"].items()]
    answer = Answer.YES if median <= published else Answer.CARE
    return Finding(question, answer, text, tuple(details))


def _rate_detail(name: str, rate: Rate) -> str:
    gflop, memory = rate["fp32_gflop_per_second"], rate["memory_gb_per_second"]
    return f"{name}: {gflop:,.0f} GFLOP/s in FP32, {memory:,.0f} GB/s ({rate['source']})"


def _beside_peers(contents: Sequence[Record]) -> Finding:
    question = "Is it as fast as the alternatives?"
    results = of_kind(contents, "peers")
    others = [
        (peer, content["reference"])
        for content in results
        for peer in content["peers"]
        if not _is_ours(peer, content)
    ]
    if not others:
        text = "No other program was measured; measure some with stpm-bench peers."
        return Finding(question, Answer.OPEN, text)
    correct = [(peer, reference) for peer, reference in others if peer["correct"]]
    faster = [peer for peer, _ in correct if peer["ratio"]["high"] < 1]
    slower = [peer for peer, _ in correct if peer["ratio"]["low"] > 1]
    text = (
        f"Of {len(correct)} programs with the same maps, {len(slower)} take longer, "
        f"{len(faster)} take less time, and {len(correct) - len(slower) - len(faster)} "
        "cannot be told apart."
    )
    everyone = [peer for content in results for peer in content["peers"] if peer["correct"]]
    if everyone:
        best = min(everyone, key=_median)
        text += (
            f" The shortest median is {_median(best):.1f} ms: {best['name']}, {best['precision']}."
        )
    details = [
        f"{peer['name']}, {peer['precision']}: {peer['ratio']['median']:.2f} times the time of "
        f"{reference} (95% interval {peer['ratio']['low']:.2f} to {peer['ratio']['high']:.2f})"
        + ("" if peer["correct"] else "; different maps, so its time does not count")
        for peer, reference in others
    ]
    details += [
        f"{left['name']}: left out, {left['reason']}"
        for content in results
        for left in content["left_out"]
    ]
    return Finding(question, Answer.CARE if faster else Answer.YES, text, tuple(details))


def _beside_methods(contents: Sequence[Record]) -> list[Finding]:
    """Compare the ratios of the methods' times with the paper's, where others were measured."""
    details, all_reached = [], True
    for content in of_kind(contents, "peers"):
        for method, milliseconds in content["paper"].items():
            published = milliseconds / content["paper"]["STPM"]
            for bundle, ratio in method_ratios(content, method.lower()).items():
                if method != "STPM":
                    details.append(
                        f"{bundle} ({method}): {ratio:.1f} times the time of "
                        f"{content['reference']}; in the paper, {published:.0f} times"
                    )
                    all_reached &= ratio >= published
    if not details:
        return []
    text = f"{'All' if all_reached else 'Not all'} ratios are at least those of the paper."
    question = "Is it as much faster than other methods as the paper says?"
    return [Finding(question, Answer.YES if all_reached else Answer.CARE, text, tuple(details))]


def _is_ours(peer: Peer, content: PeersRecord) -> bool:
    """Tell a bundle, which is named after its folder and engine, from another program."""
    return peer["name"].split(" ")[0] in content["models"]


def _trusted(contents: Sequence[Record]) -> Finding:
    question = "Are the times steady?"
    cases: list[Case | Peer] = []
    cases += [c for content in of_kind(contents, "latency") for c in content["cases"]]
    cases += [c for content in of_kind(contents, "peers") for c in content["peers"]]
    if not cases:
        return Finding(question, Answer.OPEN, f"Nothing was timed. {MEASURE}")
    flagged = [case for case in cases if case["steadiness"]["flags"]]
    singles = [case for case in cases if case.get("scenario", SINGLE) == SINGLE]
    few = [case for case in singles if sum(map(len, case["rounds_ms"])) < ENOUGH_QUERIES]
    text = f"{len(cases) - len(flagged)} of {len(cases)} cases ran steadily."
    if few:
        text += (
            f" In {len(few)} of them fewer than {ENOUGH_QUERIES} times were taken, so their "
            "99th percentile is little more than the maximum."
        )
    details = [f"{case['name']}: {', '.join(case['steadiness']['flags'])}" for case in flagged]
    answer = Answer.CARE if flagged or few else Answer.YES
    return Finding(question, answer, text, tuple(details))
