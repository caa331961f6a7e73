"""Figures of times: distributions, stages, scaling, ratios to other programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from stpm.benchmarks.plots import Figure, Key, canvas, colour, logarithmic, series, svg
from stpm.benchmarks.tables import STAGES

Case = Mapping[str, Any]

WIDTH = 620
ROW = 46
"""Points of height for a row with its label above."""
BINS = 60
SCALES = {
    "batch": ("Batch", "images in a run"),
    "image_size": ("Image size", "megapixels of the camera"),
    "streams": ("Streams", "threads that score at once"),
    "threads": ("Threads", "processor threads of a run"),
}


def latency_figures(cases: Sequence[Case], name: str) -> list[Figure]:
    """Draw what a result of kind "latency" holds."""
    figures = []
    for scenario in dict.fromkeys(case["scenario"] for case in cases):
        of_scenario = [case for case in cases if case["scenario"] == scenario]
        figures.append(_distributions(of_scenario, scenario, f"{name}-{len(figures)}"))
    stages = _stages(cases, f"{name}-stages")
    scales = (_scaling(cases, key, f"{name}-{key.replace('_', '-')}") for key in SCALES)
    return [*figures, *(f for f in (stages, *scales) if f is not None)]


def _label(case: Case) -> str:
    height, width = case["image_size"]
    details = [f"{height}x{width}"]
    details += [f"{key} {case[key]}" for key in ("batch", "streams", "threads") if case[key] > 1]
    return f"{case['bundle']}, {case['engine']}, {', '.join(details)}"


def _distributions(cases: Sequence[Case], scenario: str, name: str) -> Figure:
    title = f"Time of a query, {scenario.replace('_', ' ')}"
    lines = []
    with canvas(WIDTH, 56 + ROW * len(cases), left=14) as (figure, axes):
        everything = np.array([t for case in cases for times in case["rounds_ms"] for t in times])
        edges = np.geomspace(everything.min() * 0.97, everything.max() * 1.03, BINS + 1)
        for i, case in enumerate(cases):
            times = np.concatenate([np.asarray(r, float) for r in case["rounds_ms"]])
            counts, _ = np.histogram(times, edges)
            base = len(cases) - 1 - i
            heights = base + 0.58 * counts / counts.max()
            paint = colour("s1")
            axes.stairs(heights, edges, baseline=base, fill=True, color=paint, alpha=0.3)
            axes.stairs(heights, edges, baseline=base, color=paint, linewidth=1.2)
            for key, variable in (("p50", "s1"), ("p99", "s2")):
                at = case["latency_ms"][key]
                axes.plot([at, at], [base, base + 0.62], color=colour(variable), linewidth=2)
            axes.annotate(
                _label(case) + _flags(case),
                (0, base + 0.68),
                xycoords=("axes fraction", "data"),
                color=colour("ink"),
                fontsize=12,
            )
            figures = (f"{key} {case['latency_ms'][key]:.2f}" for key in ("p50", "p99", "max"))
            lines.append(f"{_label(case)}: {', '.join(figures)} ms")
        axes.set(xscale="log", ylim=(-0.12, len(cases)), xlabel="milliseconds", yticks=[])
        axes.spines["left"].set_visible(False)
        logarithmic(axes.xaxis)
        markup = svg(figure, name)
    keys = (Key("median", "s1"), Key("99th percentile", "s2"))
    return Figure(title, markup, "; ".join(lines) + ".", keys, is_wide=True)


def _flags(case: Case) -> str:
    flags = case["steadiness"]["flags"]
    return f"  \u2013 {', '.join(flags)}" if flags else ""


def _stages(cases: Sequence[Case], name: str) -> Figure | None:
    singles = [c for c in cases if c["scenario"] == "single_stream" and c["batch"] == 1]
    present = [s for s in STAGES if any(s in case["stages_ms"] for case in singles)]
    if not present:
        return None
    paints = {stage: f"s{i + 1}" for i, stage in enumerate(STAGES)}
    with canvas(WIDTH, 56 + ROW * len(singles), left=14) as (figure, axes):
        for i, case in enumerate(singles):
            base, left = len(singles) - 1 - i, 0.0
            for stage in present:
                length = case["stages_ms"].get(stage, {"p50": 0.0})["p50"]
                axes.barh(base + 0.3, length, 0.42, left, color=colour(paints[stage]))
                left += length
            axes.annotate(
                _label(case),
                (0, base + 0.6),
                xycoords=("axes fraction", "data"),
                color=colour("ink"),
                fontsize=12,
            )
        axes.set(ylim=(-0.05, len(singles)), xlabel="milliseconds, median of each stage", yticks=[])
        axes.spines["left"].set_visible(False)
        markup = svg(figure, name)
    keys = tuple(Key(stage, paints[stage]) for stage in present)
    text = "Where the time of one image goes; the figures stand in the table by stage."
    return Figure("One image by stage", markup, text, keys, is_wide=True)


def _scaling(cases: Sequence[Case], key: str, name: str) -> Figure | None:
    """Draw time an image over one property, a line for cases that are equal in all others."""
    lines: dict[str, list[tuple[float, float]]] = {}
    for case in cases:
        if not _value(case, key):
            continue  # the engine chose the threads itself
        others = [case["bundle"], case["engine"], case["scenario"].replace("_", " ")]
        others += [f"{k} {_text(case, k)}" for k in SCALES if k != key]
        lines.setdefault(", ".join(others), []).append((_value(case, key), case["ms_per_image"]))
    drawn = {label: sorted(points) for label, points in lines.items() if len(points) > 1}
    if not drawn:
        return None
    title, unit = SCALES[key]
    keys = []
    with canvas(400, 320) as (figure, axes):
        for i, (label, points) in enumerate(drawn.items()):
            variable, dashes, array = series(i)
            style = {"color": colour(variable), "linestyle": dashes, "linewidth": 1.8}
            axes.plot(*zip(*points, strict=True), marker="o", markersize=5, clip_on=False, **style)
            keys.append(Key(label, variable, array))
        axes.set(xlabel=unit, ylabel="milliseconds an image")
        axes.set_ylim(0)
        if key != "image_size":
            axes.set_xscale("log", base=2)
            axes.set_xticks(sorted({x for points in drawn.values() for x, _ in points}))
            axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        markup = svg(figure, name)
    text = "; ".join(
        f"{label}: " + ", ".join(f"{y:.2f} ms at {x:g}" for x, y in points)
        for label, points in drawn.items()
    )
    return Figure(f"{title}: time an image", markup, f"{text}.", tuple(keys))


def _value(case: Case, key: str) -> float:
    if key == "image_size":
        height, width = case["image_size"]
        return float(height * width / 1e6)
    return float(case[key])


def _text(case: Case, key: str) -> str:
    if key == "image_size":
        return "x".join(map(str, case["image_size"]))
    return str(case[key] or "auto")


def ratio_figure(content: Mapping[str, Any], name: str) -> Figure:
    """Draw the other programs' times over the reference's, with intervals."""
    peers = content["peers"]
    with canvas(WIDTH, 56 + ROW * len(peers), left=14) as (figure, axes):
        axes.axvline(1, color=colour("ink"), linewidth=1.2, linestyle=(0, (4, 2)))
        for i, peer in enumerate(peers):
            base, ratio = len(peers) - 1 - i, peer["ratio"]
            paint = colour("s1" if peer["correct"] else "s2")
            axes.plot([ratio["low"], ratio["high"]], [base + 0.25] * 2, color=paint, linewidth=3)
            face = paint if peer["correct"] else "none"
            dot = {"color": paint, "markerfacecolor": face, "markersize": 8}
            axes.plot(ratio["median"], base + 0.25, "o", **dot)
            wrong = "" if peer["correct"] else "  \u2013 other maps"
            axes.annotate(
                f"{peer['name']}, {peer['precision']}{wrong}",
                (0, base + 0.55),
                xycoords=("axes fraction", "data"),
                color=colour("ink"),
                fontsize=12,
            )
        axes.set(ylim=(-0.12, len(peers)), xscale="log", yticks=[])
        axes.set_xlabel(f"times the time of {content['reference']}; to the left is faster")
        axes.spines["left"].set_visible(False)
        logarithmic(axes.xaxis)
        markup = svg(figure, name)
    text = "; ".join(
        f"{p['name']}: {p['ratio']['median']:.2f} ({p['ratio']['low']:.2f} to "
        f"{p['ratio']['high']:.2f})"
        for p in peers
    )
    keys = (Key("same maps, 95 % interval", "s1"), Key("other maps: does not count", "s2"))
    return Figure("Time beside other programs", markup, f"{text}.", keys, is_wide=True)
