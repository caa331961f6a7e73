"""The live page: what a line does, for a browser in the hall and for Prometheus."""

from __future__ import annotations

from stpm.runtime.live.page.server import serve_page

__all__ = ["serve_page"]
