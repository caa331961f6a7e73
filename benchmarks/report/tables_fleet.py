"""A fleet as a table."""

from __future__ import annotations

from stpm.benchmarks.records.accuracy import METRICS
from stpm.benchmarks.records.fleet import FleetRecord, FleetScalingRecord
from stpm.benchmarks.report.tables import Table
from stpm.benchmarks.report.tables_paper import paper_tables

FIGURES = {name: METRICS[name] for name in ("image_auroc", "pixel_auroc", "aupro")}


def fleet_tables(content: FleetRecord) -> list[Table]:
    """Tabulate a result of kind "fleet": a model a row, their means, the paper's, worst images."""
    table = Table(
        f"{len(content['fleet'])} models",
        ("", *FIGURES.values(), "threshold", "MB", "seconds", "state"),
    )
    for model in content["fleet"]:
        if "error" in model:
            table.add(
                model["name"], *[""] * (len(FIGURES) + 2), f"{model['seconds']:.0f}", "failed"
            )
            continue
        figures = [model["figures"].get(name) for name in FIGURES]
        table.add(
            model["name"],
            *("" if value is None else f"{value:.4f}" for value in figures),
            f"{model['threshold']:.4g}",
            f"{model['size_bytes'] / 1e6:.1f}",
            f"{model['seconds']:.0f}",
            "unchanged" if model["reused"] else "built",
        )
    done = [model["figures"] for model in content["fleet"] if "error" not in model]
    columns = [[figures.get(name) for figures in done] for name in FIGURES]
    means = ["" if None in c or not c else f"{sum(map(float, c)) / len(c):.4f}" for c in columns]  # type: ignore[arg-type]
    if any(means):
        table.add(f"mean of {len(done)}", *means)
    failed = Table("failed", ("", "reason"))
    for model in content["fleet"]:
        if "error" in model:
            failed.add(model["name"], model["error"])
    doubtful = Table("the most doubtful images", ("", "image", "score", "threshold"))
    for model in content["fleet"]:
        for image in model.get("doubtful", []):
            scores = (f"{image['score']:.4g}", f"{model['threshold']:.4g}")
            doubtful.add(model["name"], image["name"], *scores)
    others = [t for t in (doubtful, failed) if t.rows]
    return [table, *paper_tables(content["fleet"]), *others]


def scaling_tables(content: FleetScalingRecord) -> list[Table]:
    """Tabulate a result of kind "fleet_scaling": what was measured, then the model of many."""
    rates, computed = content["images_per_second"], content["processor_ms"]
    before, after = content["load_average"]
    cores = content["environment"]["processor"]["usable_cores"]
    measured = Table(
        f"{content['engine']}, a thread a worker; {cores} cores, load {before:.0f} to {after:.0f}",
        ("", "images a second", "by one worker's", "processor ms an image"),
    )
    single = rates.get("fleet of 1")
    for name, rate in rates.items():
        times = f"{rate / single:.2f}" if single and name.startswith("fleet") else ""
        measured.add(name, f"{rate:.2f}", times, f"{computed[name]:.1f}")
    inputs = Table("what the model takes", ("", "value", "from"))
    inputs.add("decode, ms of a processor", f"{content['decode_ms']:.1f}", "measured")
    inputs.add("score, ms of a processor", f"{content['score_ms']:.1f}", "measured")
    inputs.add("kB an image", f"{content['image_bytes'] / 1e3:.0f}", "measured")
    inputs.add("tasks a second of Ray Data", f"{content['tasks_per_second']:.1f}", "measured")
    inputs.add("Gbit a second of the store", f"{content['store_gbit']:g}", "stated")
    inputs.add("requests a second of it", f"{content['store_requests']:g}", "stated")
    model = Table(
        f"model: an archive of {content['archive_images']} images",
        ("workers", "images a second", "held back by"),
    )
    for row in content["model"]:
        model.add(str(row["workers"]), f"{row['images_per_second']:.0f}", row["limit"])
    return [measured, inputs, model]
