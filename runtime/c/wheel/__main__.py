"""`python -m libstpm` prints the folder of libstpm, for CMAKE_PREFIX_PATH."""

from __future__ import annotations

import argparse
from pathlib import Path

PREFIX = Path(__file__).parent
PLACES = {
    "prefix": PREFIX,
    "cmake-dir": PREFIX / "lib/cmake/stpm",
    "pkg-config-dir": PREFIX / "lib/pkgconfig",
    "library": PREFIX / "lib/libstpm.so",
}

if __name__ == "__main__":
    parser = argparse.ArgumentParser("python -m libstpm", description=__doc__)
    parser.add_argument("place", nargs="?", choices=PLACES, default="prefix")
    print(PLACES[parser.parse_args().place])
