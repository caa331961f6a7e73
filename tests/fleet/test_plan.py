"""fleet.toml: products and seeds as models, tables as flags, and what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from stpm.fleet.plan import read_plan
from stpm.runtime.errors import DataError

TEXT = """
seeds = [3, 1, 3]
[products]
bottle = "photos/bottle"
screw = { data = "mvtec" }
nut = { data = "mvtec", category = "metal_nut" }
[train]
epochs = 7
learning-rate = 0.1
skip-bad = true
compile = false
set = ["a=1", "b=2"]
[export]
batch = "1..8"
[resources]
cpus = 2
gpus = 0.25
"""


def plan_of(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "fleet.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_each_product_and_seed_is_a_model(tmp_path: Path) -> None:
    plan = read_plan(plan_of(tmp_path, TEXT), tmp_path / "out")
    assert [model.name for model in plan.models] == [
        f"{name}-{seed}" for name in ("bottle", "screw", "nut") for seed in (3, 1)
    ]
    model = plan.models[-1]
    assert (model.root, model.folder) == (tmp_path, tmp_path / "out/nut-1")
    assert " ".join(model.train) == (
        "--epochs 7 --learning-rate 0.1 --skip-bad --set a=1 --set b=2"
    )
    assert model.export == ("--batch", "1..8")
    assert (plan.cpus, plan.gpus) == (2.0, 0.25)
    flags = [model.product.flags() for model in plan.models[::2]]
    assert flags == [
        ["--good", "photos/bottle"],
        ["--data", "mvtec", "--category", "screw"],
        ["--data", "mvtec", "--category", "metal_nut"],
    ]


def test_each_camera_has_models_of_its_own(tmp_path: Path) -> None:
    text = """
    seeds = [0, 1]
    cameras = ["left", "top"]
    [products]
    bottle = "photos/{camera}/bottle"
    screw = { data = "sets", category = "screw_{camera}" }
    """
    models = read_plan(plan_of(tmp_path, text), tmp_path / "out").models
    assert [model.name for model in models] == [
        f"{product}-{camera}-{seed}"
        for product in ("bottle", "screw")
        for camera in ("left", "top")
        for seed in (0, 1)
    ]
    assert models[3].product.flags() == ["--good", "photos/top/bottle"]
    assert models[4].product.flags() == ["--data", "sets", "--category", "screw_left"]
    assert models[4].folder == tmp_path / "out/screw-left-0"


def test_a_star_stands_for_every_category(tmp_path: Path, data_root: Path) -> None:
    shutil.copytree(data_root, tmp_path / "sets")
    shutil.copytree(tmp_path / "sets/weave", tmp_path / "sets/felt")
    text = '[products]\nall = { data = "sets", category = "*" }'
    models = read_plan(plan_of(tmp_path, text), tmp_path / "out").models
    assert [model.name for model in models] == ["felt-0", "weave-0"]
    assert models[0].product.flags() == ["--data", "sets", "--category", "felt"]
    assert len(models[0].product.images(tmp_path)) == 15


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("products = 1", r"expected a table \[products\]"),
        ("seeds = [0]", "names no product"),
        ("seeds = [-1]\n[products]\na = 'b'", "expected whole numbers"),
        ("seeds = [true]\n[products]\na = 'b'", "expected whole numbers"),
        ("[products]\n'../a' = 'b'", "got product '../a'"),
        ("[products]\na = 1", "expected a folder of good images"),
        ("[products]\na = { category = 'b' }", "expected a folder of good images"),
        ("[products]\na = { data = 1 }", "expected a folder of good images"),
        ("[product]\na = 'b'", "got product, expected cameras, export, products"),
        ("[products]\na = 'b'\n[train]\nx = { y = 1 }", "expected the value of a flag"),
        ("[products]\na = 'b'\n[resources]\nmemory = 1", "expected cpus and gpus"),
        ("[products]\na = 'b'\n[resources]\ncpus = -1", "expected cpus and gpus"),
        ("[products", "is not TOML"),
        ("[products]\na = '{camera}/b'", r"names \{camera\}; add cameras"),
        ("cameras = ['x']\n[products]\na = 'b'", "the same for every camera"),
        ("cameras = []\n[products]\na = '{camera}'", "expected names such as"),
        ("cameras = ['../x']\n[products]\na = '{camera}'", "expected names such as"),
        ("cameras = ['b-c', 'c']\n[products]\na = '{camera}'\n'a-b' = '{camera}'", "a-b-c-0"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        read_plan(plan_of(tmp_path, text), tmp_path / "out")


def test_the_hash_is_of_images_flags_and_seed(tmp_path: Path, data_root: Path) -> None:
    def hashes(text: str) -> list[str]:
        plan = read_plan(plan_of(tmp_path, text), tmp_path / "out")
        return [model.content_hash() for model in plan.models]

    good = tmp_path / "good"
    good.mkdir()
    for path in (data_root / "weave/train/good").iterdir():
        (good / path.name).write_bytes(path.read_bytes())
    text = "seeds = [0, 1]\n[products]\nweave = 'good'\n"
    first = hashes(text)
    assert len(set(first)) == 2
    assert hashes(text) == first
    assert not set(hashes(text + "[train]\nepochs = 2\n")) & set(first)
    assert not set(hashes(text + "[export]\nbatch = 2\n")) & set(first)
    (good / "000.png").write_bytes((good / "001.png").read_bytes())
    assert not set(hashes(text)) & set(first)
