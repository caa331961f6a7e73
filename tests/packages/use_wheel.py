"""Scores a picture with the installed wheel alone: python use_wheel.py DIR, of make_bundle.py."""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import stpm.runtime
from stpm.runtime import Detector

TOLERANCE = 1e-4
"""Of a score in FP32, between two versions of an engine."""


def main() -> None:
    """Fail unless the score is that of the checkout."""
    folder = Path(sys.argv[1])
    assert "site-packages" in stpm.runtime.__file__, stpm.runtime.__file__
    assert "torch" not in sys.modules
    assert find_spec("torch") is None, "torch is no part of the base install"
    expected = json.loads((folder / "expected.json").read_text(encoding="utf-8"))
    for engine in ("onnxruntime", "openvino"):
        if find_spec(engine) is not None:
            result = Detector(folder / "part.stpm", engine)(folder / "part.png")
            assert abs(result.score - expected["score"]) <= TOLERANCE, (result.score, expected)
            assert result.is_anomalous == expected["is_anomalous"]
            print(f"{engine} {version(engine)}: score {result.score:.6f}")
    print(", ".join(f"{name} {version(name)}" for name in ("numpy", "pillow", "typer")))


if __name__ == "__main__":
    main()
