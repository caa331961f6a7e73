"""How soon drift is found as tables."""

from __future__ import annotations

from stpm.benchmarks.records.drift import Delays, DriftRecord
from stpm.benchmarks.report.tables import Table


def drift_tables(content: DriftRecord) -> list[Table]:
    """Tabulate a result of kind "drift": false alarms, then delays by change and test."""
    return [_undisturbed(content), _delays(content)]


def _undisturbed(content: DriftRecord) -> Table:
    levels = [share["level"] for share in content["undisturbed"][0]["shares"]]
    table = Table(
        f"undisturbed runs with an alarm, by level: {content['images']} good images, "
        f"{content['calibration']} to begin with",
        ("", "runs", "images each", *(f"at {level:.1%}" for level in levels)),
    )
    for found in content["undisturbed"]:
        cells = (
            f"{share['alarms']}\n{share['interval'][0]:.2%}\u2013{share['interval'][1]:.2%}"
            for share in found["shares"]
        )
        table.add(found["what"], f"{found['runs']:,}", f"{found['images']:,}", *cells)
    return table


def _delays(content: DriftRecord) -> Table:
    tests = list(content["disturbances"][0]["delays"])
    table = Table(
        f"images from the change to the alarm at {content['level']:.1%}, median and quartiles",
        ("", *tests, "found"),
    )
    for found in content["disturbances"]:
        table.add(
            found["what"],
            *(_cell(found["delays"][test], found["repetitions"]) for test in tests),
            f"{found['delays']['any']['found']} of {found['repetitions']}",
        )
    return table


def _cell(delays: Delays, repetitions: int) -> str:
    low, middle, high = ("never" if value is None else str(value) for value in delays["quartiles"])
    if middle != "never":
        return f"{middle}\n{low}\u2013{high}"
    return f"never\nbut in {delays['found']} of {repetitions}" if delays["found"] else "never"
