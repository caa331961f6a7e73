"""The paper's tables beside a fleet's own figures, computed by hand."""

from __future__ import annotations

from typing import Any

import pytest

from stpm.benchmarks.records.paper import tables
from stpm.benchmarks.report.tables import Table
from stpm.benchmarks.report.tables_paper import paper_tables


def model(category: str, *figures: float | None) -> Any:
    names = ("image_auroc", "pixel_auroc", "aupro")
    return {"category": category, "figures": dict(zip(names, figures, strict=True))}


def cells(table: Table) -> dict[str, tuple[str, ...]]:
    return {row.cells[0]: row.cells[1:] for row in table.rows}


def test_two_categories_and_two_seeds_are_averaged() -> None:
    models = [
        model("screw", 0.8, 0.98, 0.93),
        model("bottle", 0.99, 0.985, 0.94),
        model("screw", 0.9, 0.96, 0.91),
        {"category": "bottle", "error": "no such folder"},
        model("own", 0.1, 0.1, 0.1),
    ]
    first, second, third = paper_tables(models)
    image = cells(first)
    assert image["STPM"] == ("15", "0.955")
    assert image["this fleet"] == ("2", "0.9200")  # (0.85 + 0.99) / 2
    pixel = cells(second)
    assert second.columns == ("", "SSIM-AE", "AnoGAN", "CNN-Dict", "SPADE", "STPM", "this fleet")
    assert second.title == "the paper's Table 2: pixel AUROC, 2 of 15 categories"
    assert list(pixel) == ["bottle", "screw", "mean of 2"]
    assert pixel["bottle"] == ("0.930", "0.860", "0.780", "0.984", "0.988", "0.9850")
    assert pixel["screw"][-2:] == ("0.983", "0.9700\n\u00b1 0.0141")
    # The published means are over the same two: (0.988 + 0.983) / 2.
    assert pixel["mean of 2"][-2:] == ("0.986", "0.9775")
    assert cells(third)["mean of 2"][-2:] == ("0.941", "0.9300")


def test_all_categories_stand_beside_the_published_means() -> None:
    paper = tables()["stpm"]["mvtec_pixel_auroc"]
    models = [
        model(name, 0.5, values[-1], 0.5) for name, values in paper.items() if name != "columns"
    ][:-1]
    _, second, third = paper_tables(models)
    assert cells(second)["mean of 15"] == ("0.870", "0.740", "0.780", "0.965", "0.970", "0.9709")
    assert cells(third)["mean of 15"][-3:] == ("0.917", "0.921", "0.5000")


def test_a_mean_over_what_is_missing_is_left_empty() -> None:
    first, second, _ = paper_tables([model("screw", None, None, 0.9), model("bottle", 1, 1, 1)])
    assert cells(first)["this fleet"] == ("2", "")
    assert cells(second)["screw"][-1] == ""
    assert cells(second)["mean of 2"][-1] == ""


@pytest.mark.parametrize("models", [[], [model("own", 1, 1, 1)]])
def test_other_data_has_no_such_tables(models: list[Any]) -> None:
    assert paper_tables(models) == []
