"""Runs every example and compares what it prints with Python: run_examples.py GOLDEN PREFIX"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from stpm.runtime import Detector

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "runtime/c/examples"


def output(*command: object, **environment: str) -> list[str]:
    """Run a program that must succeed, and return its lines."""
    words = [str(word) for word in command]
    done = subprocess.run(
        words, capture_output=True, text=True, env=os.environ | environment, check=False
    )
    assert done.returncode == 0, f"{words}: {done.stderr}"
    return done.stdout.splitlines()


def check(name: str, line: str, verdict: str, score: float) -> None:
    """Compare a printed line's verdict and score, which has 6 digits."""
    got = float(next(word for word in line.replace(",", " ").split() if word[0].isdigit()))
    assert verdict in line, line
    assert abs(got - score) <= 1e-5 * score, (line, score)
    print(f"{name}: {line}")


def main() -> None:
    """Score one picture with each example."""
    golden, prefix = (Path(argument).resolve() for argument in sys.argv[1:])
    bundle = golden / "real/fp32.stpm"
    library = next(prefix.rglob("libstpm.so"))
    pixels: NDArray[np.uint8] = np.random.default_rng(5).integers(0, 256, (90, 120, 3), np.uint8)
    result = Detector(bundle, "openvino")(pixels)
    verdict = "ANOMALOUS" if result.is_anomalous else "ok"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        Image.fromarray(pixels).save(folder / "part.ppm")
        Image.fromarray(pixels).save(folder / "part000.png")
        for program in ("build/c/consumer/score", "build/c/consumer/by_pkg_config"):
            line = output(ROOT / program, bundle, folder / "part.ppm")[0]
            check(program, line, verdict, result.score)
        lines = output(ROOT / "build/c/consumer/watch", bundle, folder, 1)
        check("watch", lines[0], verdict, result.score)
        assert len(lines) == 1 + len(result.regions)
        line = output(sys.executable, EXAMPLES / "score.py", library, bundle, folder / "part.ppm")
        check("score.py", line[0], verdict, result.score)
        cameras = ROOT / "build/c/ci/examples/cameras"
        if cameras.is_file():
            source = folder / "part%03d.png"
            lines = output(cameras, bundle, 1, source, source)
            assert len(lines) == 2
            check("cameras", lines[0].partition(": ")[2], verdict, result.score)
        else:
            print("cameras: left out; on Debian and Ubuntu: apt-get install libopencv-dev")
        if shutil.which("dotnet"):
            path = f"{library.parent}:{os.environ.get('LD_LIBRARY_PATH', '')}"
            project = EXAMPLES / "csharp"
            lines = output("dotnet", "run", "--project", project, bundle, LD_LIBRARY_PATH=path)
            print(f"C#: {lines[-1]}")
        else:
            print("C#: left out; dotnet is not here")


if __name__ == "__main__":
    main()
