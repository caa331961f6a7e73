"""Engines that say no, crash or hang in a process of their own."""

from __future__ import annotations

import os
import sys
import textwrap
from pathlib import Path

import pytest

from stpm.runtime import BackendError
from stpm.runtime.backends import ENGINES, EngineSpec
from stpm.runtime.backends.probe import check_in_child

SHAPE = {"image_shape": (64, 64, 3), "batch": (1, 1)}


@pytest.fixture
def crashing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """An engine whose library does what its graph says, in every process that is started."""
    (tmp_path / "sitecustomize.py").write_text(
        textwrap.dedent(
            """
            import os, signal, sys, time, types
            from stpm.runtime import backends
            backends.ENGINES["crashing"] = backends.EngineSpec("json", "crashing", "pip install it")
            def load(source):
                if source.model == b"crash":
                    os.kill(os.getpid(), signal.SIGSEGV)
                if source.model == b"hang":
                    time.sleep(100)
                if source.model == b"fail":
                    raise RuntimeError("no such kernel")
                return types.SimpleNamespace(run=lambda images: None)
            module = types.ModuleType("stpm.runtime.backends.crashing")
            module.load = load
            sys.modules[module.__name__] = module
            """
        )
    )
    path = os.pathsep.join([str(tmp_path), *sys.path])
    monkeypatch.setenv("PYTHONPATH", path)
    monkeypatch.setitem(ENGINES, "crashing", EngineSpec("json", "crashing", "pip install it"))
    return "crashing"


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (b"crash", "engine crashing crashed with SIGSEGV when it was tried"),
        (b"fail", r"the engine fails \(no such kernel\); choose another engine"),
        (b"hang", "engine crashing did not open within 5 s"),
    ],
)
def test_what_goes_wrong_is_one_sentence(crashing: str, model: bytes, said: str) -> None:
    with pytest.raises(BackendError, match=said) as caught:
        check_in_child(crashing, model, **SHAPE, limit_s=5 if model == b"hang" else 100)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_what_opens_passes(crashing: str, model: bytes) -> None:
    check_in_child(crashing, b"good", **SHAPE)  # type: ignore[arg-type]
    check_in_child("onnxruntime", model, **SHAPE)  # type: ignore[arg-type]
    with pytest.raises(BackendError, match="cannot run this graph on the CPU"):
        check_in_child("onnxruntime", b"no graph", **SHAPE)  # type: ignore[arg-type]
