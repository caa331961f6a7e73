"""Lines of ablation results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from stpm.runtime.errors import DataError

FIELDS = ("axis", "cell", "category", "seed", "epochs", "metrics")


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Read a file with a JSON object a line.

    Raises:
        DataError: it cannot be read, or a line is no result of an ablation.
    """
    try:
        texts = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check the path.") from error
    except ValueError as error:
        raise DataError(f"{path}: is no text ({error}); expected lines of JSON.") from error
    lines = []
    for number, text in enumerate(texts, start=1):
        try:
            line = json.loads(text)
        except ValueError:
            line = None
        if not isinstance(line, dict) or not all(field in line for field in FIELDS):
            raise DataError(
                f"{path}: line {number} is no result of an ablation, which has the fields "
                f"{', '.join(FIELDS)}; remove that line."
            )
        lines.append(line)
    return lines
