"""The report as people use it: in a browser, by keyboard, in the dark, on paper."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from browsers import in_browser, serious_problems

from stpm.benchmarks.report.document import write_report

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

LATENCY = "table:has-text('latency of one query')"

pytestmark = in_browser


@pytest.fixture
def url(results: dict[str, Path], tmp_path: Path) -> str:
    """Of a report of all kinds."""
    write_report(list(results.values()), tmp_path / "report.html")
    return (tmp_path / "report.html").as_uri()


@pytest.fixture
def page(browser: Browser, url: str) -> Iterator[Page]:
    """The report, open; nothing may be written to the console or asked from a network."""
    opened = browser.new_page()
    problems: list[str] = []
    opened.on("console", lambda message: problems.append(message.text))
    opened.on("pageerror", lambda error: problems.append(str(error)))
    opened.on("request", lambda r: r.url.startswith(("file:", "data:")) or problems.append(r.url))
    opened.goto(url)
    yield opened
    opened.close()
    assert problems == []


def column(page: Page, table: str, number: int) -> list[str]:
    """Return the first lines of a column's cells, of hidden rows too."""
    cells = page.locator(f"{table} tbody tr > :nth-child({number}) span:first-child")
    return cells.all_text_contents()


def test_a_table_sorts_by_keyboard(page: Page) -> None:
    original = column(page, LATENCY, 2)
    head = page.locator(f"{LATENCY} thead th").nth(1)
    head.get_by_role("button").focus()
    assert head.get_attribute("aria-sort") is None
    page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "ascending"
    assert column(page, LATENCY, 2) == sorted(original, key=float)
    page.keyboard.press("Space")
    assert head.get_attribute("aria-sort") == "descending"
    assert column(page, LATENCY, 2) == sorted(original, key=float, reverse=True)
    assert "sorted by p50 ms, descending" in page.get_by_role("status").inner_text()
    page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") is None
    assert column(page, LATENCY, 2) == original


def test_empty_cells_stay_last_in_both_directions(page: Page) -> None:
    table = page.locator("table:has-text('frame in memory to its map')")
    head = table.get_by_role("button", name="p99 ms")
    for _ in range(2):
        head.press("Enter")
        assert table.locator("tbody tr").last.locator("td").nth(1).inner_text() == ""


def test_a_long_table_begins_with_six_rows(page: Page) -> None:
    rows = page.locator(f"{LATENCY} tbody tr")
    count = rows.count()
    assert count > 6
    visible = page.locator(f"{LATENCY} tbody tr:visible")
    button = page.locator(".table", has=page.locator(LATENCY)).locator("button.more")
    name = button.get_attribute("aria-label")
    assert name is not None
    assert name.startswith(f"all {count} rows of Latency of one query")
    assert (visible.count(), button.get_attribute("aria-expanded")) == (6, "false")
    button.press("Enter")
    assert (visible.count(), button.get_attribute("aria-expanded")) == (count, "true")
    button.press("Enter")
    assert visible.count() == 6
    page.emulate_media(media="print")
    assert visible.count() == count
    page.emulate_media(media="screen")
    assert visible.count() == 6


def test_rows_are_filtered_by_keyboard(page: Page) -> None:
    count = len(column(page, LATENCY, 2))
    field = page.get_by_role("searchbox", name="Filter rows of Latency of one query")
    field.focus()
    page.keyboard.type("multi 96x128 batch")
    shown = page.locator(f"{LATENCY} tbody tr:visible").all_inner_texts()
    assert 0 < len(shown) < count
    assert all("multi stream" in row and "96x128" in row and "batch" in row for row in shown)
    assert f"{len(shown)} of {count} rows" in page.get_by_role("status").inner_text()
    field.fill("")
    assert len(column(page, LATENCY, 2)) == count


def test_the_first_tab_leads_to_the_verdict(page: Page) -> None:
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the verdict"
    assert page.locator(".skip").bounding_box()["y"] >= 0
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "verdict"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1360, 390])
def test_axe_finds_nothing_serious(browser: Browser, url: str, scheme: str, width: int) -> None:
    opened = browser.new_page(color_scheme=scheme, viewport={"width": width, "height": 900})
    opened.goto(url)
    opened.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    problems = serious_problems(opened)
    opened.close()
    assert problems == []


def test_schemes_differ_and_plots_follow(browser: Browser, url: str) -> None:
    colours = []
    for scheme in ("light", "dark"):
        opened = browser.new_page(color_scheme=scheme)
        opened.goto(url)
        line = (
            "getComputedStyle(document.querySelector('[id$=line2d_1] path, [id*=roc] path')).stroke"
        )
        ground = opened.evaluate("getComputedStyle(document.body).backgroundColor")
        colours.append((ground, opened.evaluate(line)))
        opened.close()
    assert colours[0][0] != colours[1][0]
    assert colours[0][1] != colours[1][1]


def test_a_narrow_screen_scrolls_down_only(browser: Browser, url: str) -> None:
    opened = browser.new_page(viewport={"width": 390, "height": 844})
    opened.goto(url)
    assert opened.evaluate("document.documentElement.scrollWidth") == 390
    opened.close()


def test_it_prints_with_all_details(page: Page) -> None:
    assert page.pdf(prefer_css_page_size=True).startswith(b"%PDF")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details:not([open])").count() == 0
