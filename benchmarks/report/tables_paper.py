"""Tables 1 to 3 of the STPM paper, with a fleet's own figures as a further column."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean, stdev

from stpm.benchmarks.records.fleet import FleetModel
from stpm.benchmarks.records.paper import tables
from stpm.benchmarks.report.tables import Table

OURS = "this fleet"
BY_CATEGORY = {
    "pixel_auroc": ("2: pixel AUROC", "mvtec_pixel_auroc"),
    "aupro": ("3: AUPRO", "mvtec_pro30"),
}


def paper_tables(models: Sequence[FleetModel]) -> list[Table]:
    """Tabulate the fleet's models of MVTec AD; none where it has no category of it.

    Args:
        models: several of a category, by seed or camera, give their mean and deviation.
    """
    paper = tables()["stpm"]
    categories = [c for c in paper["mvtec_pixel_auroc"] if c not in ("columns", "mean")]
    found = {
        category: [m["figures"] for m in models if m.get("category") == category and "figures" in m]
        for category in categories
    }
    measured = {category: figures for category, figures in found.items() if figures}
    if not measured:
        return []
    share = f"{len(measured)} of {len(categories)} categories"
    first = Table("the paper's Table 1: image AUROC of MVTec AD", ("", "categories", "mean"))
    for method, value in paper["mvtec_image_auroc_mean"].items():
        first.add(method, str(len(categories)), f"{value:.3f}", published=True)
    means = [_values(figures, "image_auroc") for figures in measured.values()]
    first.add(OURS, str(len(measured)), f"{mean(map(mean, means)):.4f}" if all(means) else "")
    result = [first]
    for metric, (title, key) in BY_CATEGORY.items():
        columns = paper[key]["columns"]
        table = Table(f"the paper's Table {title}, {share}", ("", *columns, OURS))
        values = {category: _values(figures, metric) for category, figures in measured.items()}
        for category, own in values.items():
            table.add(category, *(f"{v:.3f}" for v in paper[key][category]), _cell(own))
        published = [paper[key][category] for category in values]
        whole = [mean(column) for column in zip(*published, strict=True)]
        if len(values) == len(categories):
            whole = paper[key]["mean"]
        ours = [mean(own) for own in values.values() if own]
        cell = f"{mean(ours):.4f}" if len(ours) == len(values) else ""
        table.add(f"mean of {len(values)}", *(f"{v:.3f}" for v in whole), cell)
        result.append(table)
    return result


def _values(figures: Sequence[dict[str, float | None]], metric: str) -> list[float]:
    return [value for each in figures if (value := each.get(metric)) is not None]


def _cell(values: Sequence[float]) -> str:
    if not values:
        return ""
    deviation = f"\n\u00b1 {stdev(values):.4f}" if len(values) > 1 else ""
    return f"{mean(values):.4f}{deviation}"
