"""Times as they are typed."""

from __future__ import annotations

import re

from stpm.runtime.errors import DataError


def parse_seconds(text: str) -> float:
    """Read "250ms", "0.25s", "2min" or "0.25" as seconds.

    Raises:
        DataError: it is none of these.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?(ms|s|min|)", text.strip())
    if match is None:
        raise DataError(
            f"got the time {text!r}, expected for example 250ms, 0.25s or 2min; correct it."
        )
    return float(match[1]) * {"ms": 1e-3, "s": 1.0, "": 1.0, "min": 60.0}[match[2]]
