"""A detector in other processes: every way to start them answers, and none hangs."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from stpm.runtime import detector as detector_module
from stpm.runtime.backends import ENGINES, EngineSpec, installed_engines
from stpm.runtime.detector import Detector
from stpm.runtime.errors import BackendError

SECONDS = 90
"""After which a hanging process is ended; a run takes about 3."""
ON_CPU = [name for name, spec in ENGINES.items() if not spec.needs_gpu]
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")

START = """
import multiprocessing as mp, os, sys, threading
import numpy as np
from stpm.runtime import Detector
from stpm.runtime.errors import StpmError

IMAGE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)

def score(detector):
    return detector(IMAGE).score
"""

POOL = """
if __name__ == "__main__":
    detector = Detector(sys.argv[1], sys.argv[2], threads=1)
    with mp.get_context(sys.argv[3]).Pool(2) as pool:
        scores = pool.map(score, [detector] * 4)
    print(*sorted({*scores, detector(IMAGE).score}))
"""

INHERITED = """
detector = Detector(sys.argv[1], sys.argv[2])

def inherited(_):
    return detector(IMAGE).score

if __name__ == "__main__":
    detector(IMAGE)
    with mp.get_context("fork").Pool(2) as pool:
        scores = pool.map(inherited, range(4))
    print(*sorted({*scores, detector(IMAGE).score}))
"""

ENDS_LIKE_A_SERVER = """
detector = Detector(sys.argv[1], sys.argv[2])
children = []
for used in (False, True, True):
    child = os.fork()
    if not child:
        os.chdir("/")
        if used:
            from concurrent.futures import ThreadPoolExecutor
            with ThreadPoolExecutor(4) as pool:
                assert len(set(pool.map(score, [detector] * 4))) == 1
        sys.exit(0)
    children.append(child)
assert all(os.waitpid(child, 0)[1] == 0 for child in children)
print(detector(IMAGE).score)
"""

BUSY = """
detector = Detector(sys.argv[1], sys.argv[2])

def run():
    while True:
        detector(IMAGE)

for _ in range(3):
    threading.Thread(target=run, daemon=True).start()
for _ in range(6):
    child = os.fork()
    if not child:
        os._exit(0 if detector(IMAGE).score > 0 else 1)
    assert os.waitpid(child, 0)[1] == 0
print(detector(IMAGE).score)
sys.stdout.flush()
os._exit(0)
"""

LOADER = """
from torch.utils.data import DataLoader, Dataset

class Scores(Dataset):
    def __init__(self, detector):
        self.detector = detector
    def __len__(self):
        return 4
    def __getitem__(self, i):
        return self.detector(IMAGE).score

if __name__ == "__main__":
    detector = Detector(sys.argv[1], sys.argv[2])
    loader = DataLoader(
        Scores(detector), batch_size=None, num_workers=2, multiprocessing_context=sys.argv[3]
    )
    print(*sorted({*loader, detector(IMAGE).score}))
"""


def answer(script: str, tmp_path: Path, bundle: Path, engine: str, *arguments: str) -> str:
    """Run a script as a file, which spawned processes import, and return what it prints."""
    if engine not in installed_engines():
        pytest.skip(f"{engine} is not installed")
    file = tmp_path / "script.py"
    file.write_text(START + script)
    done = subprocess.run(
        [sys.executable, str(file), bundle.name, engine, *arguments],
        cwd=bundle.parent,
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def assert_one_score(printed: str, bundle: Path, engine: str) -> None:
    """One number, up to the engine's threads, and the one that this process computes."""
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    expected = Detector(bundle, engine)(image).score
    scores = [float(score) for score in printed.split()]
    assert scores
    np.testing.assert_allclose(scores, expected, rtol=1e-5)


@pytest.mark.parametrize("how", ["fork", "forkserver", "spawn"])
@pytest.mark.parametrize("engine", ON_CPU)
def test_a_detector_is_sent_to_workers(
    tmp_path: Path, bundle_path: Path, engine: str, how: str
) -> None:
    printed = answer(POOL, tmp_path, bundle_path, engine, how)
    assert_one_score(printed, bundle_path, engine)


@needs_fork
@pytest.mark.parametrize(
    "script", [INHERITED, ENDS_LIKE_A_SERVER, BUSY], ids=["pool", "server", "busy"]
)
@pytest.mark.parametrize("engine", ON_CPU)
def test_a_forked_child_opens_its_own_engine(
    tmp_path: Path, bundle_path: Path, engine: str, script: str
) -> None:
    assert_one_score(answer(script, tmp_path, bundle_path, engine), bundle_path, engine)


@pytest.mark.parametrize("how", ["fork", "spawn"])
@pytest.mark.parametrize("engine", ON_CPU)
def test_workers_of_a_data_loader(tmp_path: Path, bundle_path: Path, engine: str, how: str) -> None:
    assert_one_score(answer(LOADER, tmp_path, bundle_path, engine, how), bundle_path, engine)


def test_a_pickle_holds_the_path_and_the_options(
    bundle_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(bundle_path.parent)
    detector = Detector(bundle_path.name, "onnxruntime", threads=1, rebuild=False)
    content = pickle.dumps(detector)
    assert len(content) < 1000
    monkeypatch.chdir(tmp_path)
    for again in (pickle.loads(content), copy.deepcopy(pickle.loads(content))):
        assert again.bundle.path == bundle_path
        assert again.engine_name == "onnxruntime"
        assert pickle.dumps(again) == content


@needs_fork
def test_a_gpu_is_refused_in_a_forked_child(
    bundle_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    detector = Detector(bundle_path, "onnxruntime")
    spec = EngineSpec("onnxruntime", "onnxruntime_cpu", "pip install onnxruntime", True)
    monkeypatch.setitem(detector_module.ENGINES, "onnxruntime", spec)
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            detector(np.zeros((64, 64), np.uint8))
        except BackendError as error:
            os.write(writer, str(error).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    assert "CUDA does not survive a fork; open the Detector in each worker" in said
    assert detector(np.zeros((64, 64), np.uint8)).score > 0
