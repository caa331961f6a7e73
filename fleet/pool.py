"""The models of a fleet as tasks of Ray, here or on the cluster that RAY_ADDRESS names."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from stpm.runtime.errors import BackendError

RETRIES = 10
"""How often a model is taken up again whose worker was killed."""


@contextmanager
def ray_cluster() -> Iterator[Any]:
    """Join the cluster of RAY_ADDRESS, or start Ray on this machine; yields the library.

    Raises:
        BackendError: the cluster cannot be reached.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    try:
        ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    except ConnectionError as error:
        raise BackendError(
            f"no Ray cluster at {os.environ.get('RAY_ADDRESS')} ({error}); check RAY_ADDRESS."
        ) from error
    try:
        yield ray
    finally:
        ray.shutdown()


def run_tasks(
    ray: Any,
    function: Callable[[Any], dict[str, Any]],
    items: Sequence[Any],
    *,
    cpus: float,
    gpus: float,
    on_row: Callable[[dict[str, Any]], None],
) -> list[dict[str, Any]]:
    """Call a function for each item, as many at once as the cluster has room for.

    An item whose worker was killed is taken up by another one.

    Args:
        ray: from `ray_cluster`.
        function: returns a row; importable on every machine.
        items: to call it for.
        cpus, gpus: that one call takes; 0.25 lets four share a GPU.
        on_row: called with each row as it is there.

    Returns:
        The rows in the order of the items; of one that Ray gave up, only `error`.
    """
    task = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=RETRIES)(function)
    order = {task.remote(item): i for i, item in enumerate(items)}
    rows: dict[int, dict[str, Any]] = {}
    pending = list(order)
    while pending:
        (ready, *_), pending = ray.wait(pending, num_returns=1)
        try:
            row = ray.get(ready)
        except ray.exceptions.RayError as error:
            row = {"error": " ".join(str(error).split())}
        rows[order[ready]] = row
        on_row(row)
    return [rows[i] for i in range(len(items))]
