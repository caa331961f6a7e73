"""Which data set a folder holds, and the share of its images that is used."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from stpm.runtime.errors import DataError
from stpm.train.datasets import category_names, labelled_samples, open_category, take_share


def test_the_layout_of_mvtec(data_root: Path) -> None:
    category = open_category(data_root, "weave")
    assert category.folder == data_root / "weave/train/good"
    assert category.good_images() == [category.folder / f"{i:03}.png" for i in range(15)]
    assert category.test_samples() == labelled_samples(data_root / "weave")
    assert category_names(data_root) == ["weave"]


def test_a_category_may_lack_what_is_not_asked_for(data_root: Path, tmp_path: Path) -> None:
    for name, part in (("untested", "train"), ("untrained", "test")):
        (tmp_path / name).mkdir()
        (tmp_path / name / part).symlink_to(data_root / "weave" / part)
    assert len(open_category(tmp_path, "untested").good_images()) == 15
    assert len(open_category(tmp_path, "untrained").test_samples()) == 8


@pytest.fixture
def weave(data_root: Path, tmp_path: Path) -> Path:
    """A copy of the category to change."""
    return Path(shutil.copytree(data_root / "weave", tmp_path / "weave"))


@pytest.mark.parametrize("name", ["Good", "normal", "OK"])
def test_other_names_of_the_good_images(weave: Path, name: str) -> None:
    for part in ("train", "test"):
        (weave / part / "good").rename(weave / part / name)
    category = open_category(weave.parent, "weave")
    assert category.folder == weave / "train" / name
    assert len(category.good_images()) == 15
    kinds = [(sample.kind, sample.path.parent.name) for sample in category.test_samples()]
    assert sorted(set(kinds)) == [("good", name), ("hole", "hole")]


def test_good_images_of_an_unknown_name_are_named(weave: Path) -> None:
    (weave / "train/good").rename(weave / "train/fine")
    shutil.rmtree(weave / "test")
    with pytest.raises(DataError, match=r"train: contains fine, expected a folder good; rename"):
        open_category(weave.parent, "weave").good_images()


def test_two_folders_of_good_images_are_refused(weave: Path) -> None:
    shutil.copytree(weave / "test/good", weave / "test/normal")
    with pytest.raises(DataError, match=r"test: contains good and normal, expected one folder"):
        open_category(weave.parent, "weave").test_samples()


def test_what_systems_leave_is_no_category_and_no_kind_of_defect(weave: Path) -> None:
    expected = open_category(weave.parent, "weave").test_samples()
    for name in (".ipynb_checkpoints", "@eaDir", "__MACOSX"):
        shutil.copytree(weave / "test/hole", weave / "test" / name)
        shutil.copytree(weave / "test/hole", weave / "ground_truth" / name)
        shutil.copytree(weave / "test/hole", weave / "ground_truth/hole" / name)
        shutil.copytree(weave / "test/hole", weave.parent / name / "test/hole")
    (weave / "test/hole/Thumbs.db").touch()
    (weave / "ground_truth/hole/._000_mask.png").touch()
    assert open_category(weave.parent, "weave").test_samples() == expected
    assert category_names(weave.parent) == ["weave"]


def test_an_unknown_folder_gets_the_list_of_layouts(tmp_path: Path) -> None:
    (tmp_path / "weave/images").mkdir(parents=True)
    with pytest.raises(DataError) as error:
        open_category(tmp_path, "weave")
    text = str(error.value)
    assert text.startswith(f"{tmp_path}: contains no known data set; expected below it one of: ")
    for part in (
        "CATEGORY/train/good",
        "split_csv/1cls.csv",
        "cifar-10-batches-py/data_batch_1",
        "testing/frames",
    ):
        assert part in text


def test_an_unknown_category_gets_the_list_of_them(cifar10_root: Path, data_root: Path) -> None:
    with pytest.raises(DataError, match="no category 'horse', expected one of weave; name it with"):
        open_category(data_root, "horse")
    with pytest.raises(DataError, match="expected one of airplane, automobile, "):
        open_category(cifar10_root, "weave")


def test_an_absent_root_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no such folder; check --data"):
        open_category(tmp_path / "absent", "weave")


@pytest.mark.parametrize(
    ("count", "share", "taken"),
    [(209, 0.05, 11), (30, 0.1, 3), (60, 0.05, 3), (10, 1.0, 10), (7, 0.001, 1), (3, 0.7, 3)],
)
def test_a_share_is_rounded_up_and_keeps_the_order(count: int, share: float, taken: int) -> None:
    chosen = take_share(range(count), share, seed=0)
    assert len(chosen) == taken
    assert chosen == sorted(set(chosen))
    assert set(chosen) <= set(range(count))


def test_a_share_depends_on_the_seed_and_smaller_ones_lie_within() -> None:
    shares = [set(take_share(range(100), share, seed=1)) for share in (0.05, 0.1, 1.0)]
    assert shares[0] < shares[1] < shares[2] == set(range(100))
    assert len({tuple(take_share(range(100), 0.05, seed)) for seed in range(20)}) == 20
