"""What serving costs as a table."""

from __future__ import annotations

from stpm.benchmarks.records.serving import ServingRecord
from stpm.benchmarks.report.tables import Table


def serving_tables(content: ServingRecord) -> list[Table]:
    """Tabulate a result of kind "serving": a contender and number of clients a row."""
    height, width = content["image_size"]
    table = Table(
        f"requests of one {height}x{width} image, {content['engine']}",
        ("", "clients", "per second", "p50 ms", "p99 ms", "batch", "refused"),
    )
    for load in content["loads"]:
        table.add(
            load["contender"],
            str(load["clients"]),
            f"{load['requests_per_second']:.1f}",
            f"{load['latency_ms']['p50']:.1f}",
            f"{load['latency_ms']['p99']:.1f}",
            "" if load["batch"] is None else f"{load['batch']:.2f}",
            str(load["refused"]),
        )
    return [table]
