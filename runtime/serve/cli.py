"""`stpm-serve`: hand a bundle to a model server, and hold its answers to the golden ones."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stpm.runtime.bundle.archive import Bundle
from stpm.runtime.output.console import Version, known_errors, note, say
from stpm.runtime.serve.kserve import inference_service
from stpm.runtime.serve.options import TritonBackend, TritonOptions, check_extra, model_name
from stpm.runtime.store import local, on_disk

main = typer.Typer(pretty_exceptions_enable=False)
ServedBundle = Annotated[
    Path, typer.Argument(help="The folder NAME.stpm, or its s3://... address.")
]
Name = Annotated[
    str | None, typer.Option(help="Name of the model.", show_default="the bundle's folder")
]


@main.callback()
def serve(_version: Version = False) -> None:
    """Serve bundles with Triton and similar servers."""


@main.command()
@known_errors
def triton(
    bundle: ServedBundle,
    repository: Annotated[
        Path, typer.Argument(file_okay=False, help="Triton's folder of models; created if missing.")
    ],
    name: Name = None,
    backend: Annotated[
        TritonBackend,
        typer.Option(
            help="onnxruntime runs only the graph; tensorrt runs the bundle's plan; python runs "
            "stpm inside Triton, with any engine and any image size."
        ),
    ] = TritonBackend.ONNXRUNTIME,
    engine: Annotated[
        str | None,
        typer.Option(
            help="Engine whose thresholds are served; with --backend python it also runs.",
            show_default="that of the backend; with --backend python the fastest on the server",
        ),
    ] = None,
    instances: Annotated[
        int, typer.Option(min=1, max=1024, help="Copies of the model that run in parallel.")
    ] = 1,
    max_queue: Annotated[
        int,
        typer.Option(min=1, help="Requests that may wait; any further request is refused at once."),
    ] = 64,
    queue_delay_us: Annotated[
        int,
        typer.Option(
            min=0, help="Microseconds that a request waits for others to form a batch with."
        ),
    ] = 500,
    timeout_ms: Annotated[
        int,
        typer.Option(min=0, help="Refuse a request after it has waited this long; 0: never."),
    ] = 0,
) -> None:
    """Add a bundle to a model repository of NVIDIA Triton, as a new model or a new version."""
    check_extra("onnx", "tritonclient", "grpc")
    from stpm.runtime.serve.triton_repository import write_model

    options = TritonOptions(backend, engine, instances, max_queue, queue_delay_us, timeout_ms)
    opened = Bundle(local(bundle))
    on_disk(repository)
    folder = write_model(opened, repository, options, name)
    contract = opened.manifest.input
    if backend is not TritonBackend.PYTHON and contract.batch[0] == contract.batch[1]:
        note(
            f"{bundle}: its graph takes {contract.batch[0]} image(s) per run, so no batches "
            "are formed; to allow batches, export with --batch 1..8"
        )
    if backend is not TritonBackend.PYTHON and contract.resize == "host":
        height, width = contract.size
        note(
            f"{bundle}: takes images of {height}x{width}; for the camera's image size, "
            "export with --camera-size, or use --backend python"
        )
    say(folder)


@main.command()
@known_errors
def openvino(
    bundle: ServedBundle,
    repository: Annotated[
        Path, typer.Argument(file_okay=False, help="Folder of models; created if missing.")
    ],
    name: Name = None,
) -> None:
    """Add a bundle to a repository of OpenVINO Model Server, to be started with its config.json."""
    check_extra("onnx")
    from stpm.runtime.serve.openvino_repository import write_model

    on_disk(repository)
    say(write_model(Bundle(local(bundle)), repository, name))


@main.command()
@known_errors
def kserve(
    storage_uri: Annotated[
        str,
        typer.Argument(
            help="Address of the models that `triton` wrote, such as s3://bucket/models."
        ),
    ],
    name: Annotated[str, typer.Option(help="Name of the service.")] = "inspection",
    gpus: Annotated[int, typer.Option(min=0, help="NVIDIA GPUs per replica.")] = 0,
) -> None:
    """Print the InferenceService (YAML) with which KServe runs Triton on a stored repository."""
    print(inference_service(name, storage_uri, gpus=gpus), end="")


@main.command()
@known_errors
def verify(
    url: Annotated[str, typer.Argument(help="http://HOST:PORT or grpc://HOST:PORT.")],
    bundle: ServedBundle,
    grpc: Annotated[
        str | None, typer.Option(help="HOST:PORT of the gRPC endpoint, to check it as well.")
    ] = None,
    name: Name = None,
    model_version: Annotated[
        str, typer.Option(help="Version to check.", show_default="the latest")
    ] = "",
    engine: Annotated[
        str | None,
        typer.Option(
            help="Engine whose thresholds it must serve.", show_default="any of the bundle's"
        ),
    ] = None,
    timeout_s: Annotated[
        float, typer.Option(min=0.001, help="Seconds after which a request counts as failed.")
    ] = 10.0,
) -> None:
    """Send the bundle's golden images to a server, and check its answers against the bundle.

    Exits with 0 if maps, scores, thresholds and verdicts match the bundle, and with 1 if they
    do not or the server does not answer.
    """
    addresses = [_address(url), *([("grpc", grpc)] if grpc else [])]
    check_extra("tritonclient", "grpc", "geventhttpclient")
    from stpm.runtime.serve.clients import TritonClient
    from stpm.runtime.serve.verify import verify as verified

    opened = Bundle(local(bundle))
    model = name or model_name(opened)
    for protocol, address in addresses:
        client = TritonClient(protocol, address, timeout_s)
        found = verified(client, opened, model, model_version, engine)
        say(
            f"{protocol}://{address} {model}: {found.image_count} golden images, largest "
            f"difference {found.parity.map_difference:.2g} of a map's maximum, "
            f"{found.parity.score_difference:.2g} of a score; threshold {found.threshold:.6g} "
            f"({', '.join(found.engines)})"
        )


def _address(url: str) -> tuple[str, str]:
    """Split a server's URL into protocol and HOST:PORT."""
    protocol, separator, address = url.rstrip("/").partition("://")
    if not separator or protocol not in ("http", "grpc") or not address or "/" in address:
        raise typer.BadParameter(f"got {url!r}, expected http://HOST:PORT or grpc://HOST:PORT.")
    return protocol, address
