"""Opens an engine in a child process first: a crash then costs the engine, not the program."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from stpm.runtime.backends import BuiltEngine, check_engine, open_engine
from stpm.runtime.errors import BackendError, StpmError

LIMIT_S = 600.0
"""TensorRT may search for minutes; what takes longer hangs."""


def check_in_child(
    name: str,
    model: bytes,
    *,
    image_shape: tuple[int, int, int],
    batch: tuple[int, int],
    built: BuiltEngine | None = None,
    limit_s: float = LIMIT_S,
) -> None:
    """Open an engine and score a black image in another process.

    Args:
        name: the engine's.
        model, batch, built: see `stpm.runtime.backends.EngineSource`.
        image_shape: (height, width, channels) that the graph takes.
        limit_s: seconds after which it counts as hanging.

    Raises:
        BackendError: what the engine says, the signal that it dies of, or that it hangs.
    """
    check_engine(name)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "model.onnx").write_bytes(model)
        if built is not None and built.content is not None:
            (Path(folder) / "engine").write_bytes(built.content)
        request = {
            "name": name,
            "image_shape": image_shape,
            "batch": batch,
            "built_with": built.built_with if built is not None else None,
        }
        (Path(folder) / "request.json").write_text(json.dumps(request), encoding="utf-8")
        run_child(name, ["-m", "stpm.runtime.backends.probe", folder], limit_s)


def run_child(name: str, arguments: Sequence[str], limit_s: float = LIMIT_S) -> None:
    """Run a Python program that opens an engine, and wait for it.

    Args:
        name: the engine's.
        arguments: of the interpreter; what fails is the last line that the program says on stderr.
        limit_s: seconds after which it counts as hanging.

    Raises:
        BackendError: what it says, the signal that it dies of, or that it hangs.
    """
    command = [sys.executable, *arguments]
    try:
        done = subprocess.run(command, capture_output=True, timeout=limit_s, check=False)
    except subprocess.TimeoutExpired:
        raise BackendError(
            f"the engine {name} did not open within {limit_s:.0f} s; choose another engine."
        ) from None
    if done.returncode < 0:
        raise BackendError(
            f"the engine {name} crashed with {signal.Signals(-done.returncode).name} when it "
            "was tried in a separate process; install it again, or choose another engine."
        )
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        raise BackendError(
            lines[-1]
            if lines
            else f"the engine {name} ended without an error message; install it again, or choose "
            "another engine."
        )


def _open(folder: Path) -> None:
    request = json.loads((folder / "request.json").read_text(encoding="utf-8"))
    built, file = None, folder / "engine"
    if request["built_with"] is not None:
        built = BuiltEngine(file.read_bytes() if file.exists() else None, request["built_with"])
    smallest, largest = request["batch"]
    model = (folder / "model.onnx").read_bytes()
    engine = open_engine(request["name"], model, batch=(smallest, largest), built=built)
    engine.run(np.zeros((smallest, *request["image_shape"]), np.uint8))


def main() -> None:
    """Do what the request in a folder says; what fails is the last line on stderr."""
    try:
        _open(Path(sys.argv[1]))
    except StpmError as error:
        sys.exit(str(error))
    except Exception as error:
        # The engines' exceptions share no base class but Exception.
        sys.exit(f"the engine fails ({' '.join(str(error).split())}); choose another engine.")


if __name__ == "__main__":
    main()
