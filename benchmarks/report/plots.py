"""Figures of results as SVG that takes its colours from the page around it."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from stpm.benchmarks.records.accuracy import Curves, Row
from stpm.runtime.output.map_score import UNALIGNED_SCORE

VARIABLES = ("ink", "muted", "line", "paper", "s1", "s2", "s3", "s4", "s5", "s6")
"""CSS variables of the page; Matplotlib draws with a stand-in colour for each."""
_STAND_INS = {name: f"#0a0b{0x10 + i:02x}" for i, name in enumerate(VARIABLES)}
SERIES = 6
_DASHES: tuple[Any, ...] = ("solid", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)))
_DASH_ARRAYS = ("", "5 2", "1.5 1.5", "6 2 1.5 2")
_INCH = 72
"""Points; a point is a unit of the SVG."""
_SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 12.0,
    "axes.unicode_minus": True,
    "path.simplify_threshold": 0.2,
}


@dataclass(frozen=True)
class Key:
    """An entry of a legend: a CSS variable, and the pattern of the line ("" is solid)."""

    label: str
    colour: str
    dashes: str = ""


@dataclass(frozen=True)
class Figure:
    """A plot for the page.

    Attributes:
        title: one line.
        svg: markup, safe to embed.
        description: what a reader who does not see it should know.
        keys: its legend.
        note: what all should read below it; may be empty.
        is_wide: takes the whole width of the page.
    """

    title: str
    svg: str
    description: str
    keys: tuple[Key, ...] = ()
    note: str = ""
    is_wide: bool = False


def series(number: int) -> tuple[str, Any, str]:
    """Return the variable, Matplotlib's dashes and SVG's of the n-th line."""
    style = (number // SERIES) % len(_DASHES)
    return f"s{number % SERIES + 1}", _DASHES[style], _DASH_ARRAYS[style]


def colour(variable: str) -> str:
    """Return the stand-in for one of `VARIABLES`."""
    return _STAND_INS[variable]


@contextmanager
def canvas(width: float, height: float, **margins: float) -> Iterator[tuple[Canvas, Axes]]:
    """Open axes of a size in points; what is drawn inside follows the page's style."""
    with mpl.rc_context(_SETTINGS):
        figure = Canvas(figsize=(width / _INCH, height / _INCH), dpi=_INCH)
        figure.patch.set_visible(False)
        axes = figure.add_subplot()
        axes.patch.set_visible(False)
        for side, spine in axes.spines.items():
            spine.set_visible(side in ("left", "bottom"))
            spine.set_color(colour("line"))
        axes.grid(color=colour("line"), linewidth=0.7)
        axes.set_axisbelow(True)
        axes.tick_params(colors=colour("muted"), length=0, pad=6, which="both")
        for label in (axes.xaxis.label, axes.yaxis.label):
            label.set_color(colour("muted"))
        places = {"left": 52, "right": 14, "bottom": 46, "top": 12} | margins
        figure.subplots_adjust(
            left=places["left"] / width,
            right=1 - places["right"] / width,
            bottom=places["bottom"] / height,
            top=1 - places["top"] / height,
        )
        yield figure, axes


def svg(figure: Canvas, name: str) -> str:
    """Return a figure's markup, with CSS variables for colours.

    Args:
        figure: drawn.
        name: of letters, digits and hyphens, unique on the page; begins its ids.
    """
    stream = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": name, **_SETTINGS}):
        figure.savefig(stream, format="svg", metadata={"Date": None})
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", text, flags=re.DOTALL)
    text = re.sub(r'<svg [^>]*viewBox="([^"]*)"[^>]*>', _opening, text, count=1)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", text)
    text = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", text)
    for variable, stand_in in _STAND_INS.items():
        text = text.replace(stand_in, f"var(--{variable})")
    return re.sub(r"\n\s*", "\n", text)


def _opening(match: re.Match[str]) -> str:
    _, _, width, height = match[1].split()
    return (
        f'<svg viewBox="{match[1]}" width="{width}" height="{height}" aria-hidden="true" '
        'xmlns:xlink="http://www.w3.org/1999/xlink">'
    )


def logarithmic(axis: Any) -> None:
    """Label a logarithmic axis with plain numbers at 1, 2 and 5."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def curves(rows: Sequence[Row], name: str) -> list[Figure]:
    """Draw the ROC curves of images and the overlap curves of pixels of a category."""
    bad_share = "share of good parts rejected"
    pixel_share = "share of good pixels marked defective"
    kinds = [
        ("roc", _roc, "image_auroc", "ROC of images", bad_share, "share of defective parts found"),
        ("pro", _pro, "aupro", "Overlap with defects", pixel_share, "mean overlap"),
    ]
    figures = []
    for kind, points_of, metric, title, x_label, y_label in kinds:
        drawn = [(row, points) for row in rows if (points := points_of(row["curves"]))]
        if not drawn:
            continue
        keys = []
        with canvas(400, 320) as (figure, axes):
            for i, (row, (x, y)) in enumerate(drawn):
                variable, dashes, array = series(i)
                # Later lines are thinner, so that equal curves stay visible under each other.
                width = 3.5 - 2 * i / max(len(drawn) - 1, 1)
                line = {"color": colour(variable), "linestyle": dashes, "linewidth": width}
                axes.plot(x, y, clip_on=False, **line)
                keys.append(Key(_row_name(row), variable, array))
            axes.set(xlabel=x_label, ylabel=y_label, ylim=(0, 1))
            axes.set_xlim(0, max(x[-1] for _, (x, _) in drawn))
            markup = svg(figure, f"{name}-{kind}")
        areas = "; ".join(f"{_row_name(r)}: {_digits(r['overall'][metric])}" for r, _ in drawn)
        note = "Where curves coincide, the thinner ones are on top." if len(drawn) > 1 else ""
        figures.append(Figure(title, markup, f"Areas: {areas}.", tuple(keys), note))
    return figures


def _roc(curves: Curves) -> tuple[list[float], list[float]] | None:
    found = curves["roc"]
    return (found["fpr"], found["tpr"]) if found else None


def _pro(curves: Curves) -> tuple[list[float], list[float]] | None:
    found = curves["pro"]
    return (found["fpr"], found["overlap"]) if found else None


def _row_name(row: Row) -> str:
    return f"{row['name']}, {row['engine']} {row['precision']}"


def _digits(value: float | None) -> str:
    return "none" if value is None else f"{value:.4f}"


def histogram(row: Row, name: str) -> Figure:
    """Draw the scores of good and defective images, and the threshold between them.

    Parts that could not be aligned have none.
    """
    good, bad = (
        np.array(
            [
                image["score"]
                for image in row["images"]
                if image["name"].startswith("good/") is wanted and image["score"] < UNALIGNED_SCORE
            ]
        )
        for wanted in (True, False)
    )
    scores = np.concatenate([good, bad])
    threshold = row["calibration"]["image_threshold"] if row["calibration"] else None
    known = scores if threshold is None else np.append(scores, threshold)
    is_log = bool(known.min() > 0 and known.max() > 8 * known.min())
    space = np.geomspace if is_log else np.linspace
    edges = space(known.min(), known.max() * (1 + 1e-9) + 1e-12, 33).tolist()
    with canvas(400, 300) as (figure, axes):
        for values, variable in ((good, "s1"), (bad, "s2")):
            paint = colour(variable)
            axes.hist(values, edges, histtype="stepfilled", facecolor=paint, alpha=0.28)
            axes.hist(values, edges, histtype="step", edgecolor=paint, linewidth=1.6)
        if threshold is not None:
            axes.axvline(threshold, color=colour("ink"), linewidth=1.4, linestyle=(0, (4, 2)))
        axes.grid(visible=False, axis="x")
        axes.set(xlabel="score", ylabel="images")
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        if is_log:
            axes.set_xscale("log")
            logarithmic(axes.xaxis)
        markup = svg(figure, name)
    keys = [Key(f"good parts ({len(good)})", "s1"), Key(f"defective parts ({len(bad)})", "s2")]
    keys += [] if threshold is None else [Key(f"threshold {threshold:.4g}", "ink", "4 2")]
    title = f"Scores: {_row_name(row)}"
    text = f"Histogram of the scores of {len(good)} good and {len(bad)} defective parts."
    return Figure(title, markup, text, tuple(keys), _histogram_note(row))


def _histogram_note(row: Row) -> str:
    asked, found = row["calibration"], row["decisions"]
    if not (asked and found):
        return "A checkpoint has no threshold."
    low, high = asked["false_alarm_interval"]
    alarms, hits = found["false_alarm_rate"], found["detection_rate"]
    text = (
        f"Expected false alarms {asked['false_alarm_rate']:.1%} (95% interval {low:.1%} to "
        f"{high:.1%}, from {asked['image_count']} good images)"
    )
    text += "" if alarms is None else f"; observed {alarms:.1%}"
    text += "" if hits is None else f"; {hits:.1%} of the defective parts are found"
    return f"{text}."
