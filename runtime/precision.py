"""Which precision each part of the graph must be computed in, and which layers break it."""

from __future__ import annotations

from collections.abc import Mapping

NETWORK_PREFIXES = ("teacher/", "student/")
"""Begin the names of the nodes inside them."""
FP32_PREFIX = "fp32/"
"""Begins the names of all other nodes, the scoring part."""
NETWORK_TYPES = {"fp32": "f32", "fp16": "f16", "bf16": "bf16", "int8": "i8"}
"""Types of teacher and student as engines name them, by precision."""


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
