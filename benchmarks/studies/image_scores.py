"""Which reading of its map tells a defective image best?

`python -m stpm.benchmarks.studies.image_scores` tells.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer

from stpm.benchmarks.records.header import header
from stpm.benchmarks.records.result_file import check_out, write_result
from stpm.benchmarks.records.studies import ScoredModel
from stpm.runtime.output.console import command, progress, say
from stpm.train.checkpoint import load_checkpoint
from stpm.train.datasets import Sample, find_category, open_category
from stpm.train.evaluate import score_files, torch_scorer
from stpm.train.methods import Network
from stpm.train.methods.image_score import ImageScore
from stpm.train.metrics import auroc

SCORES = ("max", "top0.05%", "top0.1%", "top0.2%", "top0.5%", "top1%")


def image_aurocs(
    model: Network, samples: Sequence[Sample], scores: Sequence[str]
) -> dict[str, float]:
    """Read the maps of test images in several ways; returns the image AUROC of each.

    Args:
        model: the trained network.
        samples: test images, good and defective ones.
        scores: see `ImageScore`.
    """
    with progress("maps", len(samples)) as on_images:
        maps, _ = score_files(torch_scorer(model), [s.path for s in samples], on_images)
    truth = np.array([sample.is_anomalous for sample in samples])
    return {kind: auroc(truth, ImageScore(kind).of(torch.from_numpy(maps))) for kind in scores}


def image_scores(
    models: Annotated[list[Path], typer.Argument(help="Checkpoints.")],
    data: Annotated[Path, typer.Option(help="Root of a data set.")],
    category: Annotated[
        str | None,
        typer.Option(
            help="Category of --data.", show_default="the one that the model's name begins with"
        ),
    ] = None,
    score: Annotated[
        list[str] | None, typer.Option(help="Image score, as for stpm-export; may be repeated.")
    ] = None,
    teacher_weights: Annotated[
        Path | None,
        typer.Option(help="Teacher weights, for the authors' checkpoints, which lack the teacher."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="JSON file to write.")] = None,
) -> None:
    """Measure the image AUROC of several readings of the same maps."""
    check_out(out)
    kinds = score or SCORES
    for kind in kinds:
        ImageScore(kind).check()
    found: list[ScoredModel] = []
    for path in models:
        checkpoint = load_checkpoint(path, teacher_weights)
        name = category or find_category(path, data)
        samples = open_category(data, name).test_samples()
        aurocs = image_aurocs(checkpoint.model(), samples, kinds)
        found.append(
            {
                "name": path.name,
                "method": checkpoint.config.method,
                "category": name,
                "image_count": len(samples),
                "image_auroc": aurocs,
            }
        )
    if out is not None:
        write_result(out, header("image_scores", models) | {"scored": found})
    say(json.dumps(found, indent=2))


main = command(image_scores)

if __name__ == "__main__":
    main()
