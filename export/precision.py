"""Which precision each part of the graph must be computed in, and which layers break it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from stpm.runtime.errors import ParityError

NETWORK_PREFIXES = ("teacher/", "student/")
"""Begin the names of the nodes inside them."""
FP32_PREFIX = "fp32/"
"""Begins the names of all other nodes, the scoring part."""
NETWORK_TYPES = {"fp32": "f32", "fp16": "f16", "bf16": "bf16", "int8": "i8"}
"""Types of teacher and student as engines name them, by precision."""
NAMED_LAYERS = 3
"""Layers that an error names of those that it counts."""


def reduced_scoring_layers(precisions: Mapping[str, str]) -> list[str]:
    """Name the layers outside teacher and student that an engine does not compute in FP32.

    Args:
        precisions: an engine's `layer_precisions`. Casts are where precisions meet, and pass.
    """
    return [
        names
        for names, precision in precisions.items()
        if precision in ("f16", "bf16") and _is_scoring(names.split(","))
    ]


def foreign_network_layers(precisions: Mapping[str, str], precision: str) -> list[str]:
    """Name the layers of teacher and student that are computed in another type than asked for.

    Args:
        precisions: a layer's type by its name.
        precision: of teacher and student: a key of `NETWORK_TYPES`.
    """
    foreign = set(NETWORK_TYPES.values()) - {NETWORK_TYPES[precision]}
    return [
        name
        for name, found in precisions.items()
        if name.startswith(NETWORK_PREFIXES) and found in foreign
    ]


def _is_scoring(names: list[str]) -> bool:
    """Whether a layer fused of these nodes, some of them the engine's own, is to be in FP32."""
    exempt = any(name.startswith(NETWORK_PREFIXES) or "_to_copy" in name for name in names)
    return not exempt and any(name.startswith(FP32_PREFIX) for name in names)


def check_scoring_types(engine: str, types: dict[str, str]) -> None:
    """Refuse a scoring part that is not FP32.

    Args:
        engine: how an error names it.
        types: each layer's type by its name in the graph.

    Raises:
        ParityError: with the names of the layers.
    """
    reduced = reduced_scoring_layers(types)
    if reduced:
        raise ParityError(
            f"{engine} computes {_some(reduced)} of the scoring part in reduced precision, "
            "expected FP32; export in FP32 or choose another engine."
        )


def check_network_types(engine: str, types: dict[str, str], precision: str) -> None:
    """Refuse teacher and student in another precision than asked for.

    Engines of the processor may compute in FP32 what their hardware has no arithmetic for.

    Args:
        engine: how an error names it.
        types: each layer's type by its name in the graph.
        precision: of teacher and student.

    Raises:
        ParityError: with the names of the layers.
    """
    foreign = foreign_network_layers(types, precision)
    if foreign:
        raise ParityError(
            f"{engine} computes {_some(foreign)} of teacher and student in "
            f"{types[foreign[0]]}, expected {NETWORK_TYPES[precision]}; choose another engine or "
            "precision."
        )


def _some(layers: Sequence[str]) -> str:
    names = ", ".join(layers[:NAMED_LAYERS])
    return f"{len(layers)} layers ({names}{', ...' if len(layers) > NAMED_LAYERS else ''})"
