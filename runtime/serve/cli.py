"""`stpm-serve`: hand a bundle to a model server, and hold its answers to the golden ones."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stpm.runtime.bundle.archive import Bundle
from stpm.runtime.output.console import Version, known_errors, note, say
from stpm.runtime.serve.kserve import inference_service
from stpm.runtime.serve.options import TritonBackend, TritonOptions, check_extra, model_name
from stpm.runtime.store import local

main = typer.Typer(pretty_exceptions_enable=False)
ServedBundle = Annotated[Path, typer.Argument(help="The folder NAME.stpm, or s3://... of one.")]
Name = Annotated[str | None, typer.Option(help="Of the model.", show_default="the bundle's folder")]


@main.callback()
def serve(_version: Version = False) -> None:
    """Serve bundles with Triton and servers alike."""


@main.command()
@known_errors
def triton(
    bundle: ServedBundle,
    repository: Annotated[
        Path, typer.Argument(file_okay=False, help="Triton's folder of models; made if missing.")
    ],
    name: Name = None,
    backend: Annotated[
        TritonBackend,
        typer.Option(
            help="onnxruntime runs the graph bare; tensorrt the bundle's plan; python runs stpm "
            "inside Triton: any engine, any size of image."
        ),
    ] = TritonBackend.ONNXRUNTIME,
    engine: Annotated[
        str | None,
        typer.Option(
            help="Whose thresholds are served; with --backend python it also runs.",
            show_default="as the backend; with --backend python the fastest on the server",
        ),
    ] = None,
    instances: Annotated[
        int, typer.Option(min=1, max=1024, help="Copies of the model that run at once.")
    ] = 1,
    max_queue: Annotated[
        int, typer.Option(min=1, help="Requests that may wait; a further one is refused at once.")
    ] = 64,
    queue_delay_us: Annotated[
        int, typer.Option(min=0, help="Microseconds to wait for others to form a batch with.")
    ] = 500,
    timeout_ms: Annotated[
        int,
        typer.Option(min=0, help="Refuse a request that waited so long; 0 lets it wait."),
    ] = 0,
) -> None:
    """Add a bundle to a model repository of NVIDIA Triton, as a new model or a further version."""
    check_extra("onnx", "tritonclient", "grpc")
    from stpm.runtime.serve.triton_repository import write_model

    options = TritonOptions(backend, engine, instances, max_queue, queue_delay_us, timeout_ms)
    opened = Bundle(local(bundle))
    folder = write_model(opened, repository, options, name)
    contract = opened.manifest.input
    if backend is not TritonBackend.PYTHON and contract.batch[0] == contract.batch[1]:
        note(
            f"{bundle}: its graph takes {contract.batch[0]} image(s) a run, so no batches are "
            "formed; export with --batch 1..8 for that"
        )
    if backend is not TritonBackend.PYTHON and contract.resize == "host":
        height, width = contract.size
        note(
            f"{bundle}: takes images of {height}x{width}; for the camera's size export with "
            "--camera-size, or take --backend python"
        )
    say(folder)


@main.command()
@known_errors
def openvino(
    bundle: ServedBundle,
    repository: Annotated[
        Path, typer.Argument(file_okay=False, help="Folder of models; made if missing.")
    ],
    name: Name = None,
) -> None:
    """Add a bundle to a repository of OpenVINO Model Server, which starts on its config.json."""
    check_extra("onnx")
    from stpm.runtime.serve.openvino_repository import write_model

    say(write_model(Bundle(local(bundle)), repository, name))


@main.command()
@known_errors
def kserve(
    storage_uri: Annotated[
        str, typer.Argument(help="Where the models of `triton` lie, such as s3://bucket/models.")
    ],
    name: Annotated[str, typer.Option(help="Of the service.")] = "inspection",
    gpus: Annotated[int, typer.Option(min=0, help="NVIDIA GPUs of a replica.")] = 0,
) -> None:
    """Print the InferenceService (YAML) that has KServe run Triton on a repository in a store."""
    print(inference_service(name, storage_uri, gpus=gpus), end="")


@main.command()
@known_errors
def verify(
    url: Annotated[str, typer.Argument(help="http://HOST:PORT or grpc://HOST:PORT.")],
    bundle: ServedBundle,
    grpc: Annotated[
        str | None, typer.Option(help="HOST:PORT where gRPC is to be checked, too.")
    ] = None,
    name: Name = None,
    model_version: Annotated[
        str, typer.Option(help="Version to check.", show_default="the latest")
    ] = "",
    engine: Annotated[
        str | None,
        typer.Option(help="Whose thresholds it must serve.", show_default="any of the bundle's"),
    ] = None,
    timeout_s: Annotated[
        float, typer.Option(min=0.001, help="Seconds after which a request has failed.")
    ] = 10.0,
) -> None:
    """Send the bundle's golden images to a server, and hold its answers to the bundle.

    Exits with 0 where maps, scores, thresholds and verdicts are the bundle's, and with 1 where they
    are not or the server does not answer.
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
