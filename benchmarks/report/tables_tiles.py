"""What tiles cost as a table."""

from __future__ import annotations

from stpm.benchmarks.records.tiles import TilesRecord
from stpm.benchmarks.report.tables import Table


def tiles_tables(content: TilesRecord) -> list[Table]:
    """Tabulate a result of kind "tiles": a bundle a row."""
    threads = f", {content['threads']} threads" if content["threads"] else ""
    table = Table(
        f"large images by tiles, {content['engine']}{threads}",
        (
            *("image", "planes", "precision", "tile", "tiles", "tiles' pixels", "p50 ms"),
            *("ms a megapixel", "ms a tiled one", "CPU ms a tiled one", "peak MiB"),
        ),
    )
    for case in content["cases"]:
        height, width = case["image_size"]
        tiled = case["overlap"] * height * width / 1e6
        memory = case["peak_memory_mib"]
        table.add(
            f"{height}x{width}",
            str(case["channels"]),
            case["precision"],
            "x".join(map(str, case["tile_size"])),
            str(case["tiles"]),
            f"{case['overlap']:.2f} x",
            f"{case['latency_ms']['p50']:.0f}",
            f"{case['ms_per_megapixel']:.0f}",
            f"{case['ms_per_tiled_megapixel']:.0f}",
            f"{case['cpu_ms'] / tiled:.0f}",
            "" if memory is None else f"{memory:.0f}",
        )
    return [table]
