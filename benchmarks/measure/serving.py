"""What serving costs: clients of a server on the loopback beside threads of one Detector.

python -m stpm.benchmarks.measure.serving bottle.stpm --http 127.0.0.1:8000 --grpc 127.0.0.1:8001
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tritonclient.grpc
import typer
from numpy.typing import NDArray

from stpm.benchmarks.measure.latency import percentiles
from stpm.benchmarks.records.header import header
from stpm.benchmarks.records.result_file import check_out
from stpm.benchmarks.report.tables import show
from stpm.benchmarks.report.tables_serving import serving_tables
from stpm.runtime.bundle.archive import Bundle
from stpm.runtime.detector import Detector
from stpm.runtime.errors import BackendError, DataError
from stpm.runtime.output.console import command, note
from stpm.runtime.serve.clients import TritonClient
from stpm.runtime.serve.options import model_name
from stpm.runtime.store import local

OUTPUTS = ("pred_score", "threshold", "is_anomalous")
"""What a station asks for: the verdict, without the map."""
TIMEOUT_S = 120.0
Ask = Callable[[NDArray[np.uint8]], object]


def load(make: Callable[[], Ask], image: NDArray[np.uint8], clients: int, seconds: float) -> Any:
    """Let clients ask for some seconds, each for its next image when the last is answered.

    Args:
        make: returns what asks once, for one client; BackendError from that is a refusal.
        image: uint8 (1,H,W,3).
        clients: that ask at once.
        seconds: for which they ask; a request begun before the end is waited for.

    Returns:
        Fields of `stpm.benchmarks.records.serving.Load`.
    """
    asks = [make() for _ in range(clients)]
    ready = threading.Barrier(clients)

    def client(ask: Ask) -> tuple[list[float], int, float]:
        times, refused = [], 0
        with suppress(BackendError):  # an overloaded server refuses this one, too
            ask(image)
        ready.wait()
        began = time.perf_counter()
        end = began + seconds
        while (start := time.perf_counter()) < end:
            try:
                ask(image)
            except BackendError:
                refused += 1
                continue
            times.append((time.perf_counter() - start) * 1e3)
        return times, refused, time.perf_counter() - began

    with ThreadPoolExecutor(clients) as pool:
        found = list(pool.map(client, asks))
    times = [round(t, 3) for answered, *_ in found for t in answered]
    # Also those that were begun before the end and answered after it.
    elapsed = max(lasted for *_, lasted in found)
    if not times:
        raise DataError(f"none of {clients} clients got an answer; see the server's log.")
    return {
        "clients": clients,
        "seconds": elapsed,
        "requests": len(times),
        "refused": sum(refused for _, refused, _ in found),
        "requests_per_second": len(times) / elapsed,
        "latency_ms": percentiles(np.array(times)),
        "times_ms": times,
    }


def formed_batch(counts: Sequence[tuple[int, int]]) -> float | None:
    """Return images a run between two counts of (images, runs); None where none was run."""
    (images, runs), (later_images, later_runs) = counts
    return (later_images - images) / (later_runs - runs) if later_runs > runs else None


def _counts(grpc: str, model: str) -> tuple[int, int]:
    client = tritonclient.grpc.InferenceServerClient(grpc)
    stats = client.get_inference_statistics(model).model_stats
    return sum(s.inference_count for s in stats), sum(s.execution_count for s in stats)


def serving(
    bundle: Annotated[Path, typer.Argument(help="The folder NAME.stpm that is served.")],
    grpc: Annotated[str, typer.Option(help="HOST:PORT of the server's gRPC endpoint.")],
    http: Annotated[
        str | None, typer.Option(help="HOST:PORT of its HTTP endpoint, to measure HTTP as well.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the model.", show_default="the bundle's folder")
    ] = None,
    engine: Annotated[
        str | None, typer.Option(help="Engine of the Detector.", show_default="the fastest here")
    ] = None,
    clients: Annotated[str, typer.Option(help="Numbers of clients.")] = "1,8,64",
    seconds: Annotated[
        float, typer.Option(min=0.1, help="Seconds for each number of clients.")
    ] = 10.0,
    out: Annotated[Path | None, typer.Option(help="JSON file to write.")] = None,
) -> None:
    """Load a server that runs here, and one Detector in this process, with images of the bundle."""
    check_out(out)
    bundle = local(bundle)
    opened = Bundle(bundle)
    model = name or model_name(opened)
    image = opened.golden().images[:1]
    detector = Detector(opened, engine)
    addresses = {"grpc": grpc} | ({"http": http} if http else {})
    loads = []
    for count in map(int, clients.split(",")):
        note(f"detector, {count} threads")
        direct = load(lambda: lambda pixels: detector(pixels[0]), image, count, seconds)
        loads.append({"contender": "detector", "batch": None} | direct)
        for protocol, address in addresses.items():
            note(f"{protocol}, {count} clients")

            def make(protocol: str = protocol, address: str = address) -> Ask:
                client = TritonClient(protocol, address, TIMEOUT_S)
                return lambda pixels: client.ask(model, "", pixels, OUTPUTS)

            before = _counts(grpc, model)
            served = load(make, image, count, seconds)
            batch = formed_batch([before, _counts(grpc, model)])
            loads.append({"contender": f"{protocol} {model}", "batch": batch} | served)
    record: Any = header("serving", [bundle]) | {
        "engine": detector.engine_name,
        "image_size": list(image.shape[1:3]),
        "outputs": list(OUTPUTS),
        "loads": loads,
    }
    show(serving_tables(record), record, out)


main = command(serving)

if __name__ == "__main__":
    main()
