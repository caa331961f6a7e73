"""Reads a torch file that holds objects of other programs, without running any of their code."""

from __future__ import annotations

import io
import pickle
from collections import OrderedDict
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

import torch

TORCH_NAMES = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch", "Size"): torch.Size,
    ("torch._utils", "_rebuild_tensor"): torch._utils._rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
    ("torch._utils", "_rebuild_parameter"): torch._utils._rebuild_parameter,
}
"""All that is called; torch finds the classes of storages itself, by a fixed list."""


class Inert:
    """Stands for an object of another program: what was said of it, and nothing that it does.

    Attributes:
        name: its class or function, with the module.
        arguments: that it was to be made with.
        state: its attributes, where it was pickled with some; entries of a list or dictionary are
            under `items`.
    """

    name = ""

    def __new__(cls, *arguments: Any, **named: Any) -> Inert:
        """Make one, whatever the arguments."""
        made = super().__new__(cls)
        made.arguments = (*arguments, *named.values())
        made.state = {}
        return made

    def __init__(self, *_: Any, **__: Any) -> None:
        self.arguments: tuple[Any, ...]
        self.state: dict[str, Any]

    def __call__(self, *arguments: Any, **named: Any) -> Inert:
        """Stand for what a call of it would have given."""
        return Inert(*arguments, **named)

    def __setstate__(self, state: Any) -> None:
        # With slots it is a pair: the attributes, and the slots.
        for part in state if isinstance(state, tuple) else (state,):
            if isinstance(part, dict):
                self.state |= part

    def __setitem__(self, key: Any, value: Any) -> None:
        self.state.setdefault("items", {})[key] = value

    def append(self, value: Any) -> None:
        """Take an entry of what was a list."""
        self.state.setdefault("items", []).append(value)

    def extend(self, values: Any) -> None:
        """Take entries of what was a list."""
        for value in values:
            self.append(value)


class _Unpickler(pickle.Unpickler):
    """Knows torch's tensors; everything else becomes `Inert`."""

    def find_class(self, module: str, name: str) -> Any:
        known = TORCH_NAMES.get((module, name))
        if known is not None:
            return known
        if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        return type(name, (Inert,), {"name": f"{module}.{name}"})


def _load(file: IO[bytes], **settings: Any) -> Any:
    return _Unpickler(file, **settings).load()


_PICKLE = SimpleNamespace(
    Unpickler=_Unpickler,
    load=_load,
    loads=lambda content, **settings: _load(io.BytesIO(content), **settings),
    __name__="inert",
)
"""What torch takes for the pickle module."""


def load_inert(path: Path) -> Any:
    """Read a torch file; objects that are not tensors or plain values are `Inert`.

    Raises:
        Exception: whatever torch raises for a damaged file.
    """
    return torch.load(path, map_location="cpu", weights_only=False, pickle_module=_PICKLE)
