"""What the wheel needs: the OpenVINO that it was linked to, whose file names carry the version."""

from __future__ import annotations

from importlib.metadata import version


def dynamic_metadata(field: str, settings: dict[str, object]) -> list[str]:
    """Return the dependencies, as scikit-build-core asks for them.

    Args:
        field: "dependencies".
        settings: none are known.
    """
    if field != "dependencies" or settings:
        raise ValueError(f"got {field} with {settings}, expected dependencies without settings.")
    return [f"openvino=={version('openvino')}"]
