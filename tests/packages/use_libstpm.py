"""Holds libstpm's wheel to the checkout: python use_libstpm.py WHEEL DIR PROGRAM...

Each program prints the score of the picture in DIR, which make_bundle.py wrote; each library in the
wheel comes with its licence.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path

PACKAGES = {"libcrypto": "libssl"}
"""Libraries that Debian packs under another name."""
TOLERANCE = 1e-4


def check_licences(wheel: Path) -> None:
    """Fail unless LICENSE is there, and a licence for each library that the wheel has."""
    names = zipfile.ZipFile(wheel).namelist()
    assert any(name.endswith("/licenses/LICENSE") for name in names), names
    third = [Path(name).stem for name in names if re.search("/third-party/.+", name)]
    copied = [name for name in names if re.match(r"libstpm\.libs/.+\.so", name)]
    assert copied
    for name in copied:
        stem = Path(name).name.rpartition("-")[0]
        owner = PACKAGES.get(stem, stem)
        assert any(package.startswith(owner) for package in third), (stem, third)
    assert any(package.startswith("nlohmann-json") for package in third), third
    print(f"{wheel.name}: licences of {', '.join(third)}")


def check_score(program: Path, folder: Path) -> None:
    """Fail unless the program's verdict and score, of 6 digits, are those of Python."""
    expected = json.loads((folder / "expected.json").read_text(encoding="utf-8"))
    words = [program, folder / "part.stpm", folder / "part.ppm"]
    line = subprocess.run(words, check=True, capture_output=True, encoding="utf-8").stdout
    score = float(next(word for word in re.split("[ ,]", line) if word[:1].isdigit()))
    assert abs(score - expected["score"]) <= TOLERANCE, (line, expected)
    assert ("ANOMALOUS" in line) == expected["is_anomalous"], (line, expected)
    print(f"{program.name}: {line.strip()}")


def main() -> None:
    """Check the wheel, then the programs."""
    wheel, folder, *programs = (Path(argument) for argument in sys.argv[1:])
    check_licences(wheel)
    for program in programs:
        check_score(program, folder)


if __name__ == "__main__":
    main()
