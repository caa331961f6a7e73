"""Figures of times: distributions, stages, scaling, ratios to other programs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from stpm.benchmarks.records.speed import Case, PeersRecord, Percentiles
from stpm.benchmarks.report.plots import Figure, Key, canvas, colour, logarithmic, series, svg
from stpm.benchmarks.report.tables_speed import STAGES

WIDTH = 780
ROW = 46
LABELS = 250
"""Points of width for what a row is called."""
LETTERS = 36
"""That fit there; the tables hold the rest."""
BINS = 60
_MARKS: dict[Literal["p50", "p99"], str] = {"p50": "ink", "p99": "s2"}
Scale = Literal["batch", "image_size", "streams", "threads"]
SCALES: dict[Scale, tuple[str, str]] = {
    "batch": ("Batch", "images in a run"),
    "image_size": ("Image size", "camera megapixels"),
    "streams": ("Streams", "threads that score in parallel"),
    "threads": ("Threads", "CPU threads per run"),
}


def latency_figures(cases: Sequence[Case], name: str) -> list[Figure]:
    """Draw what a result of kind "latency" holds."""
    figures: list[Figure] = []
    for scenario in dict.fromkeys(case["scenario"] for case in cases):
        of_scenario = [case for case in cases if case["scenario"] == scenario]
        figures.append(_distributions(of_scenario, scenario, f"{name}-{len(figures)}"))
    stages = _stages(cases, f"{name}-stages")
    scales = (_scaling(cases, key, f"{name}-{key.replace('_', '-')}") for key in SCALES)
    return [*figures, *(f for f in (stages, *scales) if f is not None)]


@contextmanager
def _rows(
    labels: Sequence[tuple[str, str]], x_label: str
) -> Iterator[tuple[Canvas, Axes, list[int]]]:
    """Open axes with a row for each label of two lines; yields the rows' places too."""
    count = len(labels)
    with canvas(WIDTH, 52 + ROW * count, left=LABELS) as (figure, axes):
        places = [count - 1 - i for i in range(count)]
        for place, lines in zip(places, labels, strict=True):
            for text, offset, variable in zip(lines, (0.52, 0.16), ("ink", "muted"), strict=True):
                shown = text if len(text) <= LETTERS else f"{text[: LETTERS - 1]}\u2026"
                style: dict[str, Any] = {"color": colour(variable), "fontsize": 12}
                within = axes.get_yaxis_transform()
                axes.text(
                    -LABELS / (WIDTH - LABELS - 14),
                    place + offset,
                    shown,
                    transform=within,
                    **style,
                )
        axes.set(ylim=(-0.1, count), yticks=[], xlabel=x_label)
        axes.spines["left"].set_visible(False)
        yield figure, axes, places


def _label(case: Case) -> tuple[str, str]:
    """Name a case in two lines."""
    height, width = case["image_size"]
    details = [case["engine"], f"{height}x{width}"]
    details += [f"{key} {case[key]}" for key in ("batch", "streams", "threads") if case[key] > 1]
    return case["bundle"], ", ".join(details)


def _distributions(cases: Sequence[Case], scenario: str, name: str) -> Figure:
    title = f"Time of a query, {scenario.replace('_', ' ')}"
    everything = np.array([t for case in cases for times in case["rounds_ms"] for t in times])
    edges = np.geomspace(everything.min() * 0.97, everything.max() * 1.03, BINS + 1)
    with _rows([_label(case) for case in cases], "milliseconds") as (figure, axes, places):
        for base, case in zip(places, cases, strict=True):
            times = np.concatenate([np.asarray(r, float) for r in case["rounds_ms"]])
            counts, _ = np.histogram(times, edges)
            heights = base + 0.75 * counts / counts.max()
            paint = colour("s1")
            axes.stairs(heights, edges, baseline=base, fill=True, color=paint, alpha=0.3)
            axes.stairs(heights, edges, baseline=base, color=paint, linewidth=1.2)
            for key, variable in _MARKS.items():
                at = case["latency_ms"][key]
                axes.plot([at, at], [base, base + 0.85], color=colour(variable), linewidth=2)
        axes.set_xscale("log")
        logarithmic(axes.xaxis)
        markup = svg(figure, name)
    text = "; ".join(f"{', '.join(_label(case))}: {_times(case['latency_ms'])}" for case in cases)
    keys = (Key("all times", "s1"), Key("median", "ink"), Key("99th percentile", "s2"))
    return Figure(title, markup, f"{text}.", keys, is_wide=True)


def _times(latency_ms: Percentiles) -> str:
    figures = {"p50": latency_ms["p50"], "p99": latency_ms["p99"], "max": latency_ms["max"]}
    return ", ".join(f"{key} {figure:.2f} ms" for key, figure in figures.items())


def _stages(cases: Sequence[Case], name: str) -> Figure | None:
    singles = [c for c in cases if c["scenario"] == "single_stream" and c["batch"] == 1]
    present = [s for s in STAGES if any(s in case["stages_ms"] for case in singles)]
    if not present:
        return None
    paints = {stage: f"s{i + 1}" for i, stage in enumerate(STAGES)}
    labels = [_label(case) for case in singles]
    with _rows(labels, "milliseconds, median of each stage") as (figure, axes, places):
        for base, case in zip(places, singles, strict=True):
            left = 0.0
            for stage in present:
                length = case["stages_ms"].get(stage, {"p50": 0.0})["p50"]
                axes.barh(base + 0.45, length, 0.5, left, color=colour(paints[stage]))
                left += length
        axes.set_xlim(0)
        markup = svg(figure, name)
    keys = tuple(Key(stage, paints[stage]) for stage in present)
    text = "Where the time of one image is spent; the table by stage has the figures."
    return Figure("One image by stage", markup, text, keys, is_wide=True)


def _scaling(cases: Sequence[Case], key: Scale, name: str) -> Figure | None:
    """Draw time an image over one property, a line for cases that are equal in all others."""
    lines: dict[tuple[str, ...], list[tuple[float, float]]] = {}
    for case in cases:
        if _value(case, key):  # without, the engine chose the threads itself
            others = [case["bundle"], case["engine"], case["scenario"].replace("_", " ")]
            others += [_property(case, k) for k in SCALES if k != key]
            lines.setdefault(tuple(others), []).append((_value(case, key), case["ms_per_image"]))
    several = {others: sorted(points) for others, points in lines.items() if len(points) > 1}
    drawn = dict(zip(_differences(list(several)), several.values(), strict=True))
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
        axes.set(xlabel=unit, ylabel="milliseconds per image")
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
    return Figure(f"{title}: time per image", markup, f"{text}.", tuple(keys))


def _value(case: Case, key: Scale) -> float:
    if key == "image_size":
        height, width = case["image_size"]
        return float(height * width / 1e6)
    return float(case[key])


def _property(case: Case, key: Scale) -> str:
    if key == "image_size":
        return f"image {case[key][0]}x{case[key][1]}"
    return f"{key} {case[key] or 'auto'}"


def _differences(names: Sequence[tuple[str, ...]]) -> list[str]:
    """Write names by those of their parts in which they differ, or the first two."""
    parts = [i for i, values in enumerate(zip(*names, strict=True)) if len(set(values)) > 1]
    return [", ".join(name[i] for i in parts or (0, 1)) for name in names]


def ratio_figure(content: PeersRecord, name: str) -> Figure:
    """Draw the other programs' times over the reference's, with intervals."""
    peers = content["peers"]
    labels = [
        (p["name"], p["precision"] + ("" if p["correct"] else ", different maps")) for p in peers
    ]
    x_label = f"time relative to {content['reference']}; left is faster"
    with _rows(labels, x_label) as (figure, axes, places):
        axes.axvline(1, color=colour("ink"), linewidth=1.2, linestyle=(0, (4, 2)))
        for base, peer in zip(places, peers, strict=True):
            ratio, paint = peer["ratio"], colour("s1" if peer["correct"] else "s2")
            axes.plot([ratio["low"], ratio["high"]], [base + 0.45] * 2, color=paint, linewidth=3)
            axes.plot(ratio["median"], base + 0.45, "o", color=paint, markersize=9)
        axes.set_xscale("log")
        logarithmic(axes.xaxis)
        markup = svg(figure, name)
    text = "; ".join(
        f"{p['name']}: {p['ratio']['median']:.2f} ({p['ratio']['low']:.2f} to "
        f"{p['ratio']['high']:.2f})"
        for p in peers
    )
    keys = (Key("same maps, 95% interval", "s1"), Key("different maps: not comparable", "s2"))
    return Figure("Time compared with other programs", markup, f"{text}.", keys, is_wide=True)
