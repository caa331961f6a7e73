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
from stpm.runtime.bundle.archive import Bundle
from stpm.runtime.bundle.image_statistics import STATISTICS
from stpm.runtime.live.read_record import read_record
from stpm.runtime.live.record import Record
from stpm.runtime.live.verdict import pixels_hash

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


def replay(bundle: Path, record: Path) -> str:
    """Return what stpm-run says of a record, which must hold."""
    words = [sys.executable, "-m", "stpm.runtime", bundle, "--replay", record]
    done = subprocess.run(
        [*map(str, words), "--engine", "openvino"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stderr.splitlines()[-1]


def check_record(bundle: Path, record: Path, pixels: NDArray[np.uint8], count: int = 1) -> None:
    """Hold the lines of an example against what Python knows of the image and the bundle."""
    lines = list(read_record(record))
    assert [line.problem for line in lines] == [""] * count
    for line in lines:
        assert line.entry["sha256"] == pixels_hash(pixels)
        assert line.entry["bundle"] == Bundle(bundle).manifest_sha256
        assert line.entry["drift"].keys() == {"score", *STATISTICS, "alarms"}
    assert f" 1 as recorded, 0 different, {count - 1} images not kept," in replay(bundle, record)
    print(f"record: {count} lines, {replay(bundle, record).partition(': ')[2]}")


def check_chain(watch: Path, bundle: Path, folder: Path) -> None:
    """Kill an example, go on in Python, and in C until an alarm of drift."""
    inbox, record = folder / "in", folder / "record"
    inbox.mkdir(parents=True)
    draw = np.random.default_rng(6)
    for number in range(120):  # from the 60th on much brighter
        image = draw.integers(40, 120, (64, 64), np.uint8) + np.uint8(80 * (number >= 60))
        Image.fromarray(image).save(inbox / f"{number:03}.pgm")
    command = [str(word) for word in (watch, bundle, inbox, record)]
    for _ in range(4):
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline()
            process.kill()
    written = Record(record)
    (first, *_) = (line.entry for line in read_record(record))
    written.append({name: value for name, value in first.items() if name != "previous"})
    written.close()
    done = subprocess.run([*command, "120"], capture_output=True, text=True, check=True)
    assert done.stderr.count("folder: the brightness has changed since the calibration") == 1
    assert "brightness" in list(read_record(record))[-1].entry["drift"]["alarms"]
    print(f"watch: {replay(bundle, record).partition(': ')[2]}; {done.stderr.splitlines()[-1]}")
    (day, *_) = record.glob("*.jsonl")
    day.write_bytes(b"".join(day.open("rb").readlines()[:-1]))
    cut = subprocess.run([*command, "1"], capture_output=True, text=True, check=False)
    assert (cut.returncode, cut.stdout) == (1, "")
    assert "its end is cut or was altered" in cut.stderr


def main() -> None:
    """Score a picture with each example."""
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
        watch = ROOT / "build/c/consumer/watch"
        lines = output(watch, bundle, folder, folder / "record", 1)
        check("watch", lines[0], verdict, result.score)
        assert len(lines) == 1 + len(result.regions)
        check_record(bundle, folder / "record", pixels)
        check_chain(watch, bundle, folder / "long")
        line = output(sys.executable, EXAMPLES / "score.py", library, bundle, folder / "part.ppm")
        check("score.py", line[0], verdict, result.score)
        cameras = ROOT / "build/c/ci/examples/cameras"
        if cameras.is_file():
            source = folder / "part%03d.png"
            lines = output(cameras, bundle, folder / "record", 1, source, source)
            assert len(lines) == 2 * (1 + len(result.regions))
            check("cameras", lines[0], verdict, result.score)
            check_record(bundle, folder / "record", pixels, count=3)
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
