"""The painted parts: exact masks, parts that vary a little, same bytes, nothing overwritten."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from skimage import data

from stpm.benchmarks import painted as painting
from stpm.runtime.errors import DataError

Grey = npt.NDArray[np.uint8]
KINDS = ("scratch", "blob", "patch", "hole")
SIDE = 128
PER_KIND = 5


@pytest.fixture(scope="module")
def painted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("painted")
    painting.paint_parts(root, train_good=6, test_good=4, defects_per_kind=PER_KIND, seed=3)
    return root


def read(path: Path) -> Grey:
    with Image.open(path) as image:
        return np.asarray(image)


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def pictures(folder: Path) -> Iterator[tuple[Path, Grey, npt.NDArray[np.bool_]]]:
    """Yields every test image with its mask, all false for a good one."""
    for path in sorted(folder.glob("test/*/*.png")):
        tile = read(path)
        if path.parent.name == "good":
            yield path, tile, np.zeros(tile.shape, dtype=bool)
        else:
            name = f"{path.stem}_mask.png"
            yield path, tile, read(folder / "ground_truth" / path.parent.name / name) == 255


def test_layout_and_counts(painted: Path) -> None:
    assert sorted(path.name for path in painted.iterdir()) == sorted(painting.CATEGORIES)
    kinds = [(kind, number) for kind in KINDS for number in range(PER_KIND)]
    expected = {f"train/good/{number:03}.png" for number in range(6)}
    expected |= {f"test/good/{number:03}.png" for number in range(4)}
    expected |= {f"test/{kind}/{number:03}.png" for kind, number in kinds}
    expected |= {f"ground_truth/{kind}/{number:03}_mask.png" for kind, number in kinds}
    for category in painting.CATEGORIES:
        assert set(contents(painted / category)) == expected
        for name in expected:
            image = read(painted / category / name)
            assert image.shape == (SIDE, SIDE)
            assert image.dtype == np.uint8
            if name.startswith("ground_truth"):
                assert set(np.unique(image)) == {0, 255}


@pytest.mark.parametrize("painter", [painting._scratch, painting._blob, painting._hole])
@pytest.mark.parametrize("category", painting.CATEGORIES)
def test_masks_name_exactly_the_changed_pixels(category: str, painter: painting.Painter) -> None:
    rng = np.random.default_rng(8)
    undamaged = next(painting._captures(category, rng, SIDE))
    for size in painting.SIZES:
        tile, mask = painter(undamaged, rng, size * SIDE)
        assert np.array_equal(tile != undamaged, mask)
        change = np.abs(tile[mask].astype(int) - undamaged[mask]).mean()
        assert 5 < change < 160


@pytest.mark.parametrize("category", painting.CATEGORIES)
def test_parts_lie_within_their_limits_in_the_photograph(painted: Path, category: str) -> None:
    """Each good tile is the photograph at one place near its middle, but for light and noise."""
    photograph = np.asarray(getattr(data, category)(), np.float64)
    middle = [(length - SIDE) // 2 for length in photograph.shape]
    offsets = set()
    for path in sorted((painted / category).glob("*/good/*.png")):
        tile = read(path).astype(np.float64)
        errors = {}
        for y, x in np.ndindex(9, 9):
            top, left = middle[0] + y - 4, middle[1] + x - 4
            part = photograph[top : top + SIDE, left : left + SIDE]
            gain = (tile * part).sum() / (part * part).sum()
            errors[y - 4, x - 4] = (float((tile - gain * part).std()), float(gain))
        offset = min(errors, key=errors.__getitem__)
        deviation, gain = errors[offset]
        assert deviation == pytest.approx(painting.NOISE, rel=0.1)
        assert abs(gain - 1) <= painting.LIGHT + 0.01
        assert max(map(abs, offset)) <= painting.SHIFT
        offsets.add(offset)
    assert len(offsets) > 3


@pytest.mark.parametrize("tile_size", [painting.MIN_TILE, painting.MAX_TILE])
def test_extreme_tile_sizes_paint_every_defect(tmp_path: Path, tile_size: int) -> None:
    (folder,) = painting.paint_parts(
        tmp_path,
        categories=["page"],
        train_good=1,
        test_good=1,
        defects_per_kind=4,
        tile_size=tile_size,
    )
    for path, tile, mask in pictures(folder):
        assert tile.shape == (tile_size, tile_size)
        assert mask.any() == (path.parent.name != "good"), path


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_grows_from_small_to_large(painted: Path, kind: str) -> None:
    for category in painting.CATEGORIES:
        areas = [
            np.count_nonzero(read(painted / category / f"ground_truth/{kind}/{number:03}_mask.png"))
            for number in range(PER_KIND)
        ]
        assert areas[0] < areas[1] < areas[2] < areas[3]
        assert areas[4] < areas[2]  # the sizes start again
        assert areas[3] < 0.2 * SIDE**2


def test_a_seed_gives_the_same_bytes_and_another_seed_others(tmp_path: Path, painted: Path) -> None:
    counts = {"train_good": 6, "test_good": 4, "defects_per_kind": PER_KIND}
    # A category painted alone must equal the same one painted among others.
    painting.paint_parts(tmp_path / "a", categories=["coins"], seed=3, **counts)
    painting.paint_parts(tmp_path / "b", categories=["coins"], seed=4, **counts)
    same, other = (contents(tmp_path / name / "coins") for name in "ab")
    assert same == contents(painted / "coins")
    assert all(same[name] != other[name] for name in same)


def test_refuses_a_category_that_holds_something(tmp_path: Path) -> None:
    kept = tmp_path / "page" / "mine.txt"
    kept.parent.mkdir()
    kept.write_text("mine")
    with pytest.raises(DataError, match="exists and is not empty"):
        painting.paint_parts(tmp_path, train_good=1, test_good=1, defects_per_kind=1)
    assert contents(tmp_path) == {"page/mine.txt": b"mine"}
    assert [path.name for path in tmp_path.iterdir()] == ["page"]


def test_paints_into_an_empty_folder_beside_strangers(tmp_path: Path) -> None:
    (tmp_path / "brick").mkdir()
    (tmp_path / "other").mkdir()
    folders = painting.paint_parts(
        tmp_path, categories=["brick", "brick"], train_good=1, test_good=1, defects_per_kind=1
    )
    assert folders == [tmp_path / "brick"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["brick", "other"]


def test_a_failure_leaves_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, saved = Image.Image.save, []

    def fill_the_disk(image: Image.Image, path: Path) -> None:
        saved.append(path)
        if len(saved) > 20:
            raise OSError("disk full")
        save(image, path)

    monkeypatch.setattr(Image.Image, "save", fill_the_disk)
    with pytest.raises(DataError, match="disk full"):
        painting.paint_parts(tmp_path, train_good=5, test_good=5, defects_per_kind=1)
    assert len(saved) == 21
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"categories": ["wood"]}, "wood"),
        ({"categories": ["../brick"]}, "expected one of brick"),
        ({"tile_size": 16}, "tile size 16"),
        ({"tile_size": 256}, "tile size 256"),
        ({"train_good": 0}, "count of 0"),
        ({"seed": -1}, "seed -1"),
    ],
)
def test_refuses_bad_arguments(tmp_path: Path, arguments: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        painting.paint_parts(tmp_path, **{"train_good": 1, **arguments})  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int | str | None:
    monkeypatch.setattr("sys.argv", ["painted", *arguments])
    with pytest.raises(SystemExit) as stop:
        painting.main()
    return stop.value.code


def test_command_paints_and_then_refuses_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    counts = ["--train-good", "2", "--test-good", "1", "--defects-per-kind", "1"]
    arguments = [str(tmp_path), "--category", "brick", "--tile-size", "64", *counts]
    assert run(monkeypatch, *arguments) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "brick")
    assert len(contents(tmp_path / "brick")) == 2 + 1 + 4 * 2
    assert run(monkeypatch, *arguments) == 1
    assert capsys.readouterr().err.count("\n") == 1
