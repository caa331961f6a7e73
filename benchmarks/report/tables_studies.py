"""Studies and measurements run by hand as tables."""

from __future__ import annotations

from stpm.benchmarks.records.accuracy import METRICS
from stpm.benchmarks.records.studies import (
    AlignmentRecord,
    GraphAblationRecord,
    ImageScoresRecord,
    LibstpmRecord,
    LowPrecisionRecord,
    TrainingSpeedRecord,
)
from stpm.benchmarks.report.tables import Table


def low_precision_tables(content: LowPrecisionRecord) -> list[Table]:
    """Tabulate a result of kind "low_precision": a model and precision a row."""
    table = Table(
        f"against FP32, both on {content['engine']}",
        ("", "images", "rank corr.", "map diff.", "score diff.", *METRICS.values()),
    )
    for model, comparisons in content["comparisons"].items():
        for found in comparisons:
            pairs = [(found["fp32"].get(name), found["reduced"].get(name)) for name in METRICS]
            metrics = (
                "" if before is None or after is None else f"{after:.4f}\n{after - before:+.4f}"
                for before, after in pairs
            )
            table.add(
                f"{model}, {found['precision']}",
                str(found["image_count"]),
                f"{found['rank_correlation']:.6f}",
                f"{found['map_difference']:.2%}",
                f"{found['score_difference']:.2%}",
                *metrics,
            )
    return [table]


def graph_ablation_tables(content: GraphAblationRecord) -> list[Table]:
    """Tabulate a result of kind "graph_ablation": a choice that was undone a row."""
    table = Table(
        f"graph choices undone one at a time, {content['precision']} on {content['engine']}",
        ("", "relative time", "scatter", "lift", "map diff."),
    )
    for effect in content["effects"]:
        time = effect["time"]
        table.add(
            effect["name"],
            f"{time['median']:.3f}\n{time['low']:.3f}\u2013{time['high']:.3f}",
            f"{effect['scatter']:.2%}",
            f"{effect['lift']:+.2%}",
            f"{effect['map_difference']:.2%}",
        )
    return [table]


def image_scores_tables(content: ImageScoresRecord) -> list[Table]:
    """Tabulate a result of kind "image_scores": a model a row, a score a column."""
    kinds = list(dict.fromkeys(k for model in content["scored"] for k in model["image_auroc"]))
    table = Table("image AUROC by image score", ("", *kinds))
    for model in content["scored"]:
        aurocs = model["image_auroc"]
        cells = (f"{aurocs[kind]:.4f}" if kind in aurocs else "" for kind in kinds)
        table.add(f"{model['category']}, {model['method']}\n{model['name']}", *cells)
    return [table]


def libstpm_tables(content: LibstpmRecord) -> list[Table]:
    """Tabulate a result of kind "libstpm": medians by name."""
    table = Table(f"libstpm, medians of {content['rounds']}", ("", "median"))
    for name, value in content["median"].items():
        table.add(name.replace("_", " "), f"{value:.4g}")
    table.add("overhead over the engine", f"{content['overhead_share_of_engine']:.2%}")
    table.add(
        "resize, speed relative to Pillow", f"{content['resize_times_faster_than_pillow']:.2f}"
    )
    return [table]


def alignment_tables(content: AlignmentRecord) -> list[Table]:
    """Tabulate a result of kind "alignment": images and way to score them a row."""
    moved, limits = content["disturbance"], content["limits"]
    where = f", {', '.join(content['rois'])} alone" if content["rois"] else ""
    table = Table(
        f"{content['category']}{where}, moved by up to {moved['shift']:.0%} and "
        f"{moved['degrees']:g}\u00b0, aligned within {limits['shift']:.0%} and "
        f"{limits['degrees']:g}\u00b0",
        (
            *("", "image AUROC", "pixel AUROC", "AUPRO"),
            *("good rejected", "defects found", "unaligned"),
        ),
    )
    for case in content["cases"]:
        figures = (case["image_auroc"], case["pixel_auroc"], case["aupro"])
        table.add(
            f"{case['images']}, {'aligned' if case['aligned'] else 'not aligned'}",
            *("" if figure is None else f"{figure:.4f}" for figure in figures),
            f"{case['good_rejected']} of {content['good_count']}",
            f"{case['defects_found']} of {content['defect_count']}",
            f"{case['good_unaligned']} good, {case['defects_unaligned']} defects",
        )
    costs = Table("an image, on one processor thread", ("", "ms"))
    for name, ms in content["ms"].items():
        costs.add(f"{name} aligning", f"{ms:.1f}")
    return [table, costs]


def training_speed_tables(content: TrainingSpeedRecord) -> list[Table]:
    """Tabulate a result of kind "training_speed"."""
    table = Table(
        f"one epoch in {content['precision']}, {content['threads']} threads", ("", "seconds")
    )
    table.add("stpm-train", f"{content['median_seconds']:.1f}")
    plain = content["plain_script_ratio"]
    table.add(
        f"a plain script\n{plain:.2f} times as long", f"{plain * content['median_seconds']:.1f}"
    )
    table.add(
        f"the arithmetic alone\n{content['gflop']:.0f} GFLOP at "
        f"{content['matrix_gflop_per_second']:.0f} GFLOP/s",
        f"{content['least_seconds']:.1f}",
        published=True,
    )
    return [table]
