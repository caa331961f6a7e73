"""`stpm-bench review`: the page in a browser, its counts against the scores themselves."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from browsers import in_browser, serious_problems
from typer.testing import CliRunner

from stpm.benchmarks.cli import main
from stpm.benchmarks.review.page import SIZE_LIMIT, write_review
from stpm.runtime import Detector
from stpm.runtime.errors import DataError
from stpm.runtime.site.cli import main as calibrate

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


@pytest.fixture(scope="module")
def written(bundle_path: Path, data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("review") / "review.html"
    weave = data_root / "weave"
    arguments = ["review", str(bundle_path), "--good", str(weave / "train/good")]
    arguments += ["--bad", str(weave / "test/hole"), "-o", str(out), "--engine", "onnxruntime"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    assert "15 good parts, 4 defects" in result.stderr
    return out


@pytest.fixture(scope="module")
def scores(bundle_path: Path, data_root: Path) -> tuple[np.ndarray, np.ndarray]:
    detector = Detector(bundle_path, "onnxruntime")
    folders = data_root / "weave/train/good", data_root / "weave/test/hole"
    # One at a time, as the page does: the last bit of a score may depend on the batch.
    good, bad = (
        np.array([detector(path).score for path in sorted(folder.glob("*.png"))], np.float32)
        for folder in folders
    )
    return good, bad


def data_of(page: Path) -> dict[str, Any]:
    found = re.search(r'id="data">(.*?)</script>', page.read_text(), re.DOTALL)
    assert found
    values = json.loads(found[1])
    assert isinstance(values, dict)
    return values


def test_the_page_holds_every_score(written: Path, scores: tuple[np.ndarray, np.ndarray]) -> None:
    rows = data_of(written)["images"]
    for wanted, is_bad in zip(scores, (False, True), strict=True):
        got = [row["score"] for row in rows if row["bad"] == is_bad]
        assert got == pytest.approx(wanted.tolist(), rel=1e-6)
    assert all(row["picture"].startswith("data:image/webp;base64,") for row in rows)


def test_five_hundred_images_take_less_than_five_megabytes(
    bundle_path: Path, data_root: Path, tmp_path: Path
) -> None:
    detector = Detector(bundle_path, "onnxruntime")
    good = sorted((data_root / "weave/train/good").glob("*.png")) * 34
    out = tmp_path / "many.html"
    made = write_review(detector, good[:500], [], out)
    assert out.stat().st_size < SIZE_LIMIT
    assert (made.good, made.without_picture) == (500, 0)


@pytest.fixture
def page(browser: Browser, written: Path) -> Iterator[Page]:
    """The page, open from its file; nothing may go to the console or be asked from a network."""
    opened = browser.new_page(viewport={"width": 1100, "height": 900})
    problems: list[str] = []
    opened.on("console", lambda message: problems.append(message.text))
    opened.on("pageerror", lambda error: problems.append(str(error)))
    opened.on("request", lambda r: r.url.startswith(("file:", "data:")) or problems.append(r.url))
    opened.goto(written.as_uri())
    yield opened
    opened.close()
    assert problems == []


def counts(page: Page) -> tuple[float, int, int]:
    """The threshold of the command, rejected good parts and missed defects, as the page says."""
    command = page.inner_text("#command")
    found = re.search(
        r"(\d+) of 15 good parts rejected .* (\d+) of 4 defects missed", page.inner_text("#counts")
    )
    assert found
    threshold = re.search(r"--threshold (\S+)", command)
    assert threshold
    return float(threshold[1]), int(found[1]), int(found[2])


def check(page: Page, scores: tuple[np.ndarray, np.ndarray]) -> tuple[float, int, int]:
    threshold, rejected, missed = counts(page)
    good, bad = scores
    assert rejected == (good > threshold).sum()
    assert missed == (bad <= threshold).sum()
    assert page.locator("#rejected li[tabindex]").count() == rejected
    assert page.locator("#missed li[tabindex]").count() == missed
    return threshold, rejected, missed


@in_browser
def test_it_begins_with_the_bundles_threshold(
    page: Page, bundle_path: Path, scores: tuple[np.ndarray, np.ndarray]
) -> None:
    detector = Detector(bundle_path, "onnxruntime")
    assert check(page, scores)[0] == detector.calibration.image_threshold
    assert page.inner_text("#changed") == "none"


@in_browser
def test_each_key_changes_one_side(page: Page, scores: tuple[np.ndarray, np.ndarray]) -> None:
    page.keyboard.press("t")
    page.keyboard.press("Home")
    _, rejected, missed = check(page, scores)
    assert (rejected, missed) == (15, 0)
    seen = 0
    for _ in range(30):
        before = rejected + 4 - missed
        page.keyboard.press("ArrowRight")
        _, rejected, missed = check(page, scores)
        changed = before - (rejected + 4 - missed)
        assert changed in (0, 1)  # none where the step is onto the bundle's own threshold
        seen += changed
    assert seen == 19


@in_browser
def test_dragging(page: Page, scores: tuple[np.ndarray, np.ndarray]) -> None:
    box = page.locator("#threshold").bounding_box()
    assert box is not None
    middle = box["y"] + box["height"] / 2
    found = set()
    page.mouse.move(box["x"] + 8, middle)
    page.mouse.down()
    for share in (0.2, 0.5, 0.9):
        page.mouse.move(box["x"] + share * box["width"], middle, steps=4)
        found.add(check(page, scores))
    page.mouse.up()
    assert len(found) == 3
    assert f"{scores[1].min():.4g}"[:5] in page.locator("#missed li").first.inner_text()


@in_browser
def test_keys_step_through_the_pictures(page: Page) -> None:
    page.keyboard.press("t")
    page.keyboard.press("Home")
    for _ in range(3):
        page.keyboard.press("j")
    page.keyboard.press("k")
    at = "[...document.querySelectorAll('li[tabindex]')].indexOf(document.activeElement)"
    assert page.evaluate(at) == 1


@in_browser
def test_the_command_sets_it(
    page: Page, bundle_path: Path, tmp_path: Path, scores: tuple[np.ndarray, np.ndarray]
) -> None:
    page.keyboard.press("t")
    page.keyboard.press("ArrowLeft")
    threshold, rejected, _ = check(page, scores)
    line = shutil.copytree(bundle_path, tmp_path / "line.stpm")
    words = page.inner_text("#command").split()
    assert words[:2] == ["stpm-calibrate", str(bundle_path)]
    assert CliRunner().invoke(calibrate, [str(line), *words[2:]]).exit_code == 0
    detector = Detector(line, "onnxruntime")
    assert detector.calibration.image_threshold == threshold
    assert (scores[0] > detector.calibration.image_threshold).sum() == rejected


@in_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_axe_finds_nothing_serious(
    browser: Browser, written: Path, scheme: str, width: int
) -> None:
    opened = browser.new_page(color_scheme=scheme, viewport={"width": width, "height": 900})
    opened.goto(written.as_uri())
    opened.keyboard.press("t")
    opened.keyboard.press("Home")
    problems = serious_problems(opened)
    overflow = opened.evaluate("document.documentElement.scrollWidth > innerWidth")
    opened.close()
    assert problems == []
    assert not overflow


def test_what_is_missing_is_said(bundle_path: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["review", str(bundle_path)])
    assert result.exit_code == 2
    with pytest.raises(DataError, match="got no good images"):
        write_review(Detector(bundle_path, "onnxruntime"), [], [], tmp_path / "a.html")
