"""Figures of drift: the evidence of each test over time."""

from __future__ import annotations

import math

from stpm.benchmarks.records.drift import Disturbance, DriftRecord
from stpm.benchmarks.report.plots import Figure, Key, canvas, colour, series, svg


def drift_figures(content: DriftRecord, name: str) -> list[Figure]:
    """Draw the evidence of a result of kind "drift", a figure a change."""
    return [
        _evidence(found, content["level"], f"{name}-{number}")
        for number, found in enumerate(content["disturbances"])
        if found["evidence"]
    ]


def _evidence(found: Disturbance, level: float, name: str) -> Figure:
    limit = math.log10(len(found["evidence"]) / level)
    keys = []
    with canvas(400, 280) as (figure, axes):
        for number, (test, points) in enumerate(found["evidence"].items()):
            variable, dashes, array = series(number)
            axes.plot(*zip(*points, strict=True), color=colour(variable), linestyle=dashes)
            keys.append(Key(test, variable, array))
        axes.axhline(limit, color=colour("ink"), linewidth=1.4, linestyle=(0, (4, 2)))
        axes.axvline(0, color=colour("muted"), linewidth=1)
        axes.set(xlabel="images since the change", ylabel="evidence, log10")
        markup = svg(figure, name)
    keys.append(Key("alarm", "ink", "4 2"))
    ends = (f"{test} ends at {points[-1][1]:g}" for test, points in found["evidence"].items())
    text = f"Evidence in one repetition until the alarm at {limit:.2f}: {', '.join(ends)}."
    return Figure(f"Evidence: {found['what']}", markup, text, tuple(keys))
