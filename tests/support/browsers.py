"""Chromium for tests of pages: how it is started, and what axe finds on a page."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Page

CHROMIUM = shutil.which("chromium")
FLAGS = (
    "--no-sandbox",  # which Chromium needs as root
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
in_browser = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")


def serious_problems(page: Page) -> list[tuple[str, str]]:
    """What keeps people from using a page, as axe sees it: the rule and the first place."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response["violations"]
    serious = [v for v in found if v["impact"] in ("serious", "critical")]
    return [(v["id"], v["nodes"][0]["html"]) for v in serious]
