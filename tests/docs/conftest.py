"""What the pages' commands run with: a furnished folder, and a shell."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from furniture import Models, furnish
from warm_commands import warm_commands

from stpm.export.options import ExportOptions
from stpm.export.pipeline import export_bundle
from stpm.train.checkpoint import load_checkpoint
from stpm.train.datasets import list_images


def exported(checkpoint_path: Path, images: Path, out: Path) -> Path:
    checkpoint = load_checkpoint(checkpoint_path)
    export_bundle(
        checkpoint,
        out,
        ExportOptions(),
        verify=list_images(images),
        calibration=checkpoint.held_out_images(),
        report=lambda _: None,
    )
    return out


@pytest.fixture(scope="session")
def furnished(
    tmp_path_factory: pytest.TempPathFactory,
    data_root: Path,
    cifar10_root: Path,
    mnist_root: Path,
    checkpoint_path: Path,
    stad_path: Path,
    spade_path: Path,
    bundle_path: Path,
    whole_teacher_file: Path,
) -> Path:
    """A folder to take copies of."""
    folder, bundles = tmp_path_factory.mktemp("furnished"), tmp_path_factory.mktemp("bundles")
    good = data_root / "weave/test/good"
    models = Models(
        checkpoint_path,
        stad_path,
        bundle_path,
        exported(stad_path, good, bundles / "stad.stpm"),
        exported(spade_path, good, bundles / "spade.stpm"),
        whole_teacher_file,
    )
    furnish(folder, data_root, models, [cifar10_root, mnist_root])
    return folder


@pytest.fixture(scope="session")
def warm() -> Iterator[dict[str, str]]:
    """Variables that make a shell run the project's commands quickly."""
    with warm_commands() as variables:
        yield variables
