"""A station under load as tables."""

from __future__ import annotations

from stpm.benchmarks.records.live import LiveRecord
from stpm.benchmarks.report.tables import Table


def live_tables(content: LiveRecord) -> list[Table]:
    """Tabulate a result of kind "live": cameras, times, and what became of the rest."""
    return [_cameras(content), _times(content), _rest(content)]


def _cameras(content: LiveRecord) -> Table:
    height, width = content["image_size"]
    table = Table(
        f"cameras: {len(content['cameras'])} of {height}x{width}, frames a second of each: "
        f"{content['rate']:g}, minutes: {content['seconds'] / 60:g}",
        ("", "frames", "verdicts", "lost", "dropped", "errors", "away s"),
    )
    for camera in content["cameras"]:
        verdicts = camera["verdicts"]
        table.add(
            camera["name"],
            str(camera["sent"]),
            str(sum(verdicts.values())),
            str(camera["lost"]),
            str(verdicts.get("dropped", 0)),
            str(verdicts.get("error", 0)),
            "" if camera["away_s"] is None else f"{camera['away_s']:.1f}",
        )
    return table


def _times(content: LiveRecord) -> Table:
    table = Table("latency in ms", ("", "p50", "p90", "p99", "longest"))
    rows = content["stages_ms"] | (
        {} if content["told_ms"] is None else {"frame due to message heard": content["told_ms"]}
    )
    for stage, times in rows.items():
        table.add(stage, *(f"{times[name]:.1f}" for name in ("p50", "p90", "p99", "max")))
    return table


def _rest(content: LiveRecord) -> Table:
    table = Table("the station", ("", "found"))
    for failure in content["failures"]:
        table.add(
            failure["what"], f"after {failure['at_s']:.0f} s, for {failure['lasted_s']:.0f} s"
        )
    messages = content["messages"]
    table.add(
        "messages heard",
        f"{messages['heard']} of {messages['lines']} verdicts, {messages['twice']} twice",
    )
    for sink in content["sinks"]:
        table.add(f"sink {sink['kind']}", f"{sink['sent']} taken, {sink['lost']} left out")
    table.add("record", content["chain"] or "whole")
    table.add(f"later than {content['cycle_time_ms']:g} ms", f"{content['late']} verdicts")
    memory = [sample["memory_mib"] for sample in content["samples"]]
    growth = f"{100 * content['memory_growth']:+.2f}%"
    table.add("resident memory", f"{memory[-1]:.0f} MiB, {growth} after the warm-up")
    others = content["other_cores"]
    besides = "" if others is None else f", everything else {others:.2f}"
    table.add("processors in use", f"{content['cores']:.2f}{besides}")
    return table
