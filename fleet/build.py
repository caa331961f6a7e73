"""One model of a fleet, from its images to its figures: what is done already is not done again."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from typing import Any

from stpm.benchmarks.records.result_file import read_result, write_whole
from stpm.fleet.plan import Model
from stpm.runtime.bundle.archive import MANIFEST, Bundle
from stpm.runtime.errors import StpmError

DONE = "done.json"
KEY = "key.txt"
LOG = "log.txt"
ACCURACY = "accuracy.json"
PICTURES = "pictures"
DOUBTFUL = 4
"""Images of a model that are shown: in turn a good part and a defect."""
FIGURES = ("image_auroc", "pixel_auroc", "aupro")


def build_model(model: Model) -> dict[str, Any]:
    """Train, export, verify, calibrate and measure a model, from where an earlier run stopped.

    A checkpoint that a killed worker left is continued, bit for bit as if it had not stopped.

    Args:
        model: what to build; its folder is made.

    Returns:
        A row of `stpm.benchmarks.records.fleet.FleetRecord`; what failed stands in its `error`.
    """
    os.chdir(model.root)
    started = time.monotonic()
    row = names_of(model)
    try:
        key = model.content_hash()
        done = _done(model, key)
        if done is not None:
            return done | {"reused": True}
        _start(model, key)
        _work(model)
        row |= _figures(model) | {"key": key, "seconds": time.monotonic() - started}
        write_whole(model.folder / DONE, json.dumps(row, indent=1) + "\n")
    except (StpmError, OSError) as error:
        row |= {"error": str(error), "seconds": time.monotonic() - started}
    return row | {"reused": False}


def names_of(model: Model) -> dict[str, Any]:
    """Return what tells a model's row from the others."""
    product = model.product
    row = {"name": model.name, "product": product.name, "camera": product.camera}
    return row | {"category": product.category or "", "seed": model.seed}


def bundle_path(model: Model) -> Path:
    """Return where a model's bundle is."""
    return model.folder / f"{model.name}.stpm"


def _done(model: Model, key: str) -> dict[str, Any] | None:
    """Return the row of an earlier run; None where its images, flags or bundle have changed."""
    try:
        row: dict[str, Any] = json.loads((model.folder / DONE).read_text(encoding="utf-8"))
        same = row["key"] == key and row["manifest_sha256"] == _manifest_hash(model)
    except (OSError, ValueError, KeyError):
        return None
    return row if same else None


def _start(model: Model, key: str) -> None:
    """Keep the folder of an earlier run only where it is of the same images and flags."""
    mark = model.folder / KEY
    if model.folder.exists() and not (mark.is_file() and mark.read_text(encoding="utf-8") == key):
        if not mark.is_file() and any(model.folder.iterdir()):
            raise StpmError(
                f"{model.folder}: exists but is not a model of a fleet; choose another "
                "folder with --out."
            )
        shutil.rmtree(model.folder)
    model.folder.mkdir(parents=True, exist_ok=True)
    write_whole(mark, key)


def _work(model: Model) -> None:
    checkpoint, bundle = model.folder / "model.pt", bundle_path(model)
    seed = ["--seed", str(model.seed), "--out", str(checkpoint)]
    resume = ["--resume"] if checkpoint.is_file() else []
    run_command(model, "train", [*model.product.flags(), *seed, *resume, *model.train])
    words = ["--ckpt", str(checkpoint), "--out", str(bundle), "--overwrite", *model.export]
    run_command(model, "export", words)
    product = model.product
    if product.data is not None and product.category is not None:
        words = ["accuracy", str(bundle), "--data", product.data, "--category", product.category]
        words += ["--gallery", str(model.folder / PICTURES), "--gallery-count", str(DOUBTFUL)]
        run_command(model, "benchmarks", [*words, "--out", str(model.folder / ACCURACY)])


def run_command(model: Model, floor: str, words: Sequence[str]) -> None:
    """Run one of our commands in this process; its output goes to the model's log.

    Raises:
        StpmError: it failed; the sentence is the command's.
    """
    program = import_module(f"stpm.{floor}.cli").main
    log = model.folder / LOG
    with log.open("a", encoding="utf-8") as stream:
        start = stream.tell()
        with redirect_stdout(stream), redirect_stderr(stream):
            try:
                program(args=list(words), prog_name=f"stpm.{floor}")
            except SystemExit as end:
                code = end.code
    if code:
        with log.open(encoding="utf-8") as stream:
            stream.seek(start)
            said = [line for line in stream if line.startswith("error: ")]
        reason = (
            said[-1].removeprefix("error: ").strip() if said else f"exit code {code}, see {log}"
        )
        raise StpmError(reason)


def _figures(model: Model) -> dict[str, Any]:
    bundle = Bundle(bundle_path(model))
    engine, record = next(iter(bundle.manifest.engines.items()))
    figures: dict[str, float | None] = {}
    doubtful: list[dict[str, Any]] = []
    accuracy = model.folder / ACCURACY
    if accuracy.is_file():
        result = read_result(accuracy)
        assert result["kind"] == "accuracy"
        (rows,) = result["categories"].values()
        overall = next(r["overall"] for r in rows if r["engine"] == engine)
        figures = {name: overall[name] for name in FIGURES}
        pictures = [picture for group in result["gallery"].values() for picture in group]
        doubtful = [
            {"name": f"{p['kind']}/{Path(p['picture']).stem}", "score": p["score"]}
            for p in pictures
        ]
    return {
        "engine": engine,
        "threshold": record.calibration.image_threshold,
        "false_alarm_rate": record.calibration.false_alarm_rate,
        "size_bytes": sum(entry.size_bytes for entry in bundle.manifest.files.values()),
        "manifest_sha256": _manifest_hash(model),
        "figures": figures,
        "doubtful": doubtful,
    }


def _manifest_hash(model: Model) -> str:
    return sha256((bundle_path(model) / MANIFEST).read_bytes()).hexdigest()
