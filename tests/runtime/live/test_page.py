"""The live page in a real browser, and what Prometheus reads."""

from __future__ import annotations

import io
import shutil
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from browsers import in_browser, serious_problems
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families
from stations import wait_until

from stpm.runtime import Detector
from stpm.runtime.errors import DataError
from stpm.runtime.images.preprocess import load_image
from stpm.runtime.live.delivery import Delivery
from stpm.runtime.live.drift import Drift
from stpm.runtime.live.page import serve_page
from stpm.runtime.live.page.state import _picture
from stpm.runtime.live.sinks import open_sink
from stpm.runtime.live.sources import SourceOptions
from stpm.runtime.live.sources.folder import FolderSource
from stpm.runtime.live.station import Camera, Station
from stpm.runtime.live.verdict import Event
from stpm.runtime.output.overlay import overlay

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


class Running:
    """A station with a page, on a folder that a test fills."""

    def __init__(self, detector: Detector, folder: Path, token: str | None = None) -> None:
        self.inbox = folder / "inbox"
        self.inbox.mkdir()
        calibration = detector.calibration
        self.camera = Camera(
            "top",
            FolderSource(self.inbox, SourceOptions()),
            detector,
            drift=Drift(calibration.scores, calibration.image_statistics),
        )
        address = f"csv:{folder / 'verdicts.csv'}"
        self.station = Station([self.camera], None, [Delivery(address, open_sink(address))])
        self._page = serve_page("127.0.0.1:0", token, self.station)
        self.url = self._page.__enter__()
        self._thread = threading.Thread(target=self.station.run)
        self._thread.start()

    def put(self, *paths: Path) -> None:
        before = self.camera.counts.total()
        for path in paths:
            shutil.copy(path, self.inbox / f"{path.parent.name}-{path.name}")
        wait_until(lambda: self.camera.counts.total() == before + len(paths))

    def end(self) -> None:
        self.station.stop()
        self._thread.join(30)
        self._page.__exit__(None, None, None)


@pytest.fixture
def running(detector: Detector, tmp_path: Path) -> Iterator[Running]:
    station = Running(detector, tmp_path)
    yield station
    station.end()


def test_small_pictures_show_the_same_overlay(detector: Detector, bad: list[Path]) -> None:
    large = Image.fromarray(load_image(bad[0])).resize((960, 640), Image.Resampling.BICUBIC)
    result = replace(detector(large), min_area=4)
    painted = Image.fromarray(overlay(np.asarray(large), result))
    expected = painted.resize((480, 320), Image.Resampling.BOX)
    content = _picture(Event({}, np.asarray(large), result))
    assert content is not None
    picture = Image.open(io.BytesIO(content))
    assert picture.size == (480, 320)
    assert result.regions
    plain = np.asarray(large.resize((480, 320), Image.Resampling.BOX), np.float32)
    wanted, shown = (
        np.abs(np.asarray(one, np.float32) - plain).max(axis=2) > 40 for one in (expected, picture)
    )
    assert (wanted & shown).sum() > 0.6 * (wanted | shown).sum() > 0


def get(url: str, **headers: str) -> bytes:
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers)) as answer:
        return bytes(answer.read())


def test_prometheus_reads_counts(running: Running, good: list[Path], bad: list[Path]) -> None:
    running.put(*good[:3], *bad[:2])
    families = text_string_to_metric_families(get(f"{running.url}metrics").decode())
    samples = [sample for family in families for sample in family.samples]
    verdicts = {s.labels["verdict"]: s.value for s in samples if s.name == "stpm_verdicts_total"}
    assert verdicts == dict(running.camera.counts)
    assert sum(verdicts.values()) == 5
    stages = {s.labels["stage"] for s in samples if s.name == "stpm_latency_seconds"}
    assert stages == {"wait", "decode", "score", "total"}


@pytest.fixture
def page(browser: Browser, running: Running) -> Iterator[Page]:
    """The page, open; nothing may be written to the console or asked from elsewhere."""
    opened = browser.new_page(viewport={"width": 1024, "height": 768})
    problems: list[str] = []
    opened.on("console", lambda message: problems.append(message.text))
    opened.on("pageerror", lambda error: problems.append(str(error)))
    ours = (running.url, "data:")
    opened.on("request", lambda r: r.url.startswith(ours) or problems.append(r.url))
    opened.goto(running.url)
    yield opened
    opened.close()
    assert problems == []


@in_browser
def test_verdicts_appear_by_themselves(
    page: Page, running: Running, good: list[Path], bad: list[Path]
) -> None:
    running.put(*good[:2], bad[0])
    page.wait_for_selector(".last li:nth-child(3)")
    counts = running.camera.counts
    shown = dict(
        zip(
            page.locator(".counts dt").all_inner_texts(),
            page.locator(".counts dd").all_inner_texts(),
            strict=True,
        )
    )
    assert shown["ok"] == str(counts["ok"])
    assert shown["anomalous"] == str(counts["anomalous"])
    first = page.locator(".last li").first
    assert bad[0].name in first.inner_text()
    assert page.locator(".scores circle").count() == 3
    assert page.locator(".last img").first.evaluate("(image) => image.naturalWidth") > 0
    running.put(bad[1])
    page.wait_for_function(
        f"document.querySelector('.last li').innerText.includes('{bad[1].name}')"
    )
    assert "csv:" in page.locator("#delivery tbody tr").inner_text()


@in_browser
def test_a_picture_opens_and_closes_by_keys(page: Page, running: Running, bad: list[Path]) -> None:
    running.put(bad[0])
    page.wait_for_selector(".last button")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.locator("#viewer").evaluate("(dialog) => dialog.open")
    assert bad[0].name in page.locator("#viewer figcaption").inner_text()
    page.keyboard.press("Escape")
    assert not page.locator("#viewer").evaluate("(dialog) => dialog.open")


@in_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_axe_finds_nothing_serious(
    browser: Browser, running: Running, bad: list[Path], scheme: str, width: int
) -> None:
    running.put(*bad)
    opened = browser.new_page(color_scheme=scheme, viewport={"width": width, "height": 900})
    opened.goto(running.url)
    opened.wait_for_selector(".last li")
    problems = serious_problems(opened)
    overflow = opened.evaluate("document.documentElement.scrollWidth > innerWidth")
    opened.close()
    assert problems == []
    assert not overflow


def test_a_token_is_asked_for(detector: Detector, tmp_path: Path) -> None:
    station = Running(detector, tmp_path, token="secret")
    try:
        for url, headers in ((station.url, {}), (f"{station.url}?token=wrong", {})):
            with pytest.raises(urllib.error.HTTPError) as error:
                get(url, **headers)
            assert error.value.code == 401
        assert b"<title>Line</title>" in get(f"{station.url}?token=secret")
        assert b"stpm_late" in get(f"{station.url}metrics", Authorization="Bearer secret")
    finally:
        station.end()


def test_another_name_for_this_machine_is_refused(running: Running) -> None:
    with pytest.raises(urllib.error.HTTPError) as error:
        get(f"{running.url}state", Host="evil.example")
    assert error.value.code == 400


def test_addresses_that_are_none(running: Running) -> None:
    taken = running.url.removeprefix("http://").rstrip("/")
    for address, says in (
        ("8080", "expected HOST:PORT"),
        ("127.0.0.1:x", "expected HOST:PORT"),
        (taken, "choose another port"),
        ("192.168.0.1:80", "without --page-token"),
    ):
        with pytest.raises(DataError, match=says), serve_page(address, None, running.station):
            pass
