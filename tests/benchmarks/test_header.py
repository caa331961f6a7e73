"""The beginning of a result file names the command as it would be typed."""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec

import pytest

from stpm.benchmarks.records.header import header


@pytest.mark.parametrize(
    ("module", "program"),
    [
        (None, "stpm-bench"),
        ("stpm.benchmarks.__main__", "python -m stpm.benchmarks"),
        ("stpm.benchmarks.studies.image_scores", "python -m stpm.benchmarks.studies.image_scores"),
    ],
)
def test_the_command_can_be_typed_again(
    module: str | None, program: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = None if module is None else ModuleSpec(module, None)
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", spec)
    monkeypatch.setattr(sys, "argv", ["/usr/bin/stpm-bench", "my model.pt", "--out", "a.json"])
    assert header("accuracy", [])["command"] == f"{program} 'my model.pt' --out a.json"
