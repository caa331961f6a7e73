"""`stpm-live`: cameras in, verdicts out, and a record of them."""

from __future__ import annotations

import json
import re
import signal
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stpm.runtime.detector import Detector
from stpm.runtime.errors import DataError
from stpm.runtime.live.delivery import Delivery
from stpm.runtime.live.drift import LEVEL, Drift
from stpm.runtime.live.durations import parse_seconds
from stpm.runtime.live.line import KEEP_MAX_MB, CameraPlan, LinePlan, WhenBehind, read_line
from stpm.runtime.live.memory import keep_large_blocks_apart
from stpm.runtime.live.record import Record
from stpm.runtime.live.sinks import open_sink
from stpm.runtime.live.sources import SourceOptions, check_installed, open_source
from stpm.runtime.live.station import Camera, Station
from stpm.runtime.live.verdict import Event
from stpm.runtime.output.console import Version, command, note, say
from stpm.runtime.store import on_disk, shown

if TYPE_CHECKING:
    from stpm.runtime.live.keep import KeptFrames


def live(
    bundle: Annotated[
        Path,
        typer.Argument(
            help="The folder NAME.stpm, or a file LINE.toml that describes several cameras."
        ),
    ],
    source: Annotated[
        list[str] | None,
        typer.Argument(
            help="[NAME=]ADDRESS of a camera: a folder to watch, a video file, rtsp://..., usb:N, "
            "or genicam:NAME.",
        ),
    ] = None,
    watch: Annotated[
        Path | None,
        typer.Option(help="A folder to watch; the same as giving it as a source.", file_okay=False),
    ] = None,
    move: Annotated[
        Path | None,
        typer.Option(
            help="Folder to move the scored files to.",
            show_default="files are not moved",
            file_okay=False,
        ),
    ] = None,
    record: Annotated[
        Path, typer.Option(help="Folder for the record of verdicts.", file_okay=False)
    ] = Path("record"),
    keep: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the frames of cameras and videos, so that --replay can score them.",
            show_default="they are not kept",
            file_okay=False,
        ),
    ] = None,
    keep_max_mb: Annotated[
        float, typer.Option(min=1, help="Megabytes of kept frames; then the oldest go.")
    ] = KEEP_MAX_MB,
    sink: Annotated[
        list[str] | None,
        typer.Option(
            help="Where to send verdicts; may be repeated: csv:FILE, parquet:FOLDER, "
            "mqtt://HOST/TOPIC, https://..., opcua://HOST:PORT, pictures:FOLDER?every=N&max-mb=N.",
        ),
    ] = None,
    every: Annotated[str, typer.Option(help="Time between two frames, such as 200ms.")] = "",
    trigger: Annotated[
        str,
        typer.Option(
            help="Trigger of a GenICam camera: software (by --every), hardware, or a line such "
            "as Line0."
        ),
    ] = "",
    exposure_us: Annotated[
        float | None, typer.Option(help="Exposure of a GenICam camera in microseconds.")
    ] = None,
    pixel_format: Annotated[
        str, typer.Option(help="Pixel format of a GenICam camera, such as Mono8 or BayerRG8.")
    ] = "",
    shadow: Annotated[
        Path | None,
        typer.Option(help="A second bundle that scores every image too, but decides nothing."),
    ] = None,
    engine: Annotated[
        str | None,
        typer.Option(help="Engine, such as onnxruntime.", show_default="the fastest here"),
    ] = None,
    threads: Annotated[
        int, typer.Option(min=0, help="CPU threads per run; 0 leaves the choice to the engine.")
    ] = 0,
    when_behind: Annotated[
        WhenBehind,
        typer.Option(help="What happens to frames that arrive faster than they can be scored."),
    ] = WhenBehind.BLOCK,
    queue: Annotated[int, typer.Option(min=1, help="Frames per camera that may wait.")] = 8,
    cycle_time: Annotated[
        str | None,
        typer.Option(
            help="Longest allowed time to a verdict, such as 250ms; later ones are counted."
        ),
    ] = None,
    drift_level: Annotated[
        float,
        typer.Option(
            min=1e-9, max=0.5, help="Probability of a false drift alarm, over the whole run."
        ),
    ] = LEVEL,
    page: Annotated[
        str | None, typer.Option(help="Serve the live page at HOST:PORT, such as 127.0.0.1:8080.")
    ] = None,
    page_token: Annotated[
        str | None,
        typer.Option(
            envvar="STPM_PAGE_TOKEN",
            help="Secret that a browser must send; required if other machines can reach the page.",
            show_default=False,
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object per verdict.")
    ] = False,
    _version: Version = False,
) -> None:
    """Score camera images and report every verdict, until the sources end or Ctrl+C.

    Every verdict is recorded on disk before it is sent to any sink.
    """
    keep_large_blocks_apart()
    plan = LinePlan((), record, keep, keep_max_mb, page, cycle_time, when_behind, tuple(sink or ()))
    if bundle.suffix == ".toml":
        if source or watch or shadow or move:
            raise typer.BadParameter(
                "LINE.toml names its own cameras; leave out sources, --watch, --shadow and --move."
            )
        plan = read_line(bundle, plan)
    else:
        addresses = [*(source or ()), *([str(watch)] if watch else ())]
        if not addresses:
            raise typer.BadParameter("give a source: a folder to watch, a video, or a camera.")
        camera = CameraPlan(
            *("", "", bundle, shadow, engine, every, move, exposure_us, pixel_format, trigger)
        )
        named = [_name_and_address(text, number) for number, text in enumerate(addresses, 1)]
        cameras = tuple(replace(camera, name=name, source=address) for name, address in named)
        plan = replace(plan, cameras=cameras)
    names = [camera.name for camera in plan.cameras]
    if len(set(names)) < len(names):
        raise typer.BadParameter(f"got the cameras {', '.join(names)}, expected different names.")
    listeners = [_printer(as_json), _drift_teller()]
    station = _open_station(plan, listeners, threads, drift_level, queue)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: station.stop())
    if plan.page is None:
        station.run()
    else:
        from stpm.runtime.live.page import serve_page

        with serve_page(plan.page, page_token, station) as address:
            note(f"live page: {address}")
            station.run()
    for text in summary(station):
        note(text)


def _open_station(
    plan: LinePlan,
    listeners: Sequence[Callable[[Event], None]],
    threads: int,
    drift_level: float,
    queue: int,
) -> Station:
    limit = parse_seconds(plan.cycle_time) if plan.cycle_time else None
    on_disk(plan.record)
    on_disk(plan.keep)
    record = Record(plan.record)
    if record.torn:
        note(
            f"{plan.record}: the last line was incomplete and had not been sent to any sink; it "
            "was removed"
        )
    cameras = _open_cameras(plan.cameras, threads, drift_level, record)
    for camera in cameras:
        path = shown(camera.detector.bundle.path)
        note(f"{camera.name}: {path}, engine {camera.detector.engine_name}")
    return Station(
        cameras,
        record,
        [Delivery(address, open_sink(address)) for address in plan.sinks],
        listeners,
        when_behind=WhenBehind(plan.when_behind),
        queue=queue,
        cycle_time=limit,
        keep=_open_keep(plan),
    )


def summary(station: Station) -> list[str]:
    """Say what a run came to, a line for each camera and sink."""
    lines = []
    for camera in station.cameras:
        counts = ", ".join(f"{count} {name}" for name, count in sorted(camera.counts.items()))
        stages = camera.latencies.quantiles()
        p50, p99 = stages.get("total", (0.0, 0.0))
        lines.append(
            f"{camera.name}: {counts or 'no verdict'}; from frame to record p50 {p50:.1f} ms, "
            f"p99 {p99:.1f} ms"
        )
        if camera.shadow is not None:
            lines.append(
                f"{camera.name}: the shadow bundle differs in {camera.shadow_differs} verdicts"
            )
    if station.cycle_time is not None:
        lines.append(f"later than {1e3 * station.cycle_time:g} ms: {station.late} verdicts")
    if station.keep is not None and station.keep.failed:
        lines.append(f"frames that could not be kept: {station.keep.failed}")
    lines += [f"{d.address}: {d.sent} delivered, {d.lost} not" for d in station.deliveries]
    return lines


def _open_keep(plan: LinePlan) -> KeptFrames | None:
    if plan.keep is None:
        return None
    if plan.keep_max_mb < 1:
        raise DataError(f"got keep-max-mb = {plan.keep_max_mb:g}, expected 1 or more; correct it.")
    if all(Path(camera.source).is_dir() for camera in plan.cameras):
        raise DataError(
            "got --keep with folders alone, whose files stay where they are, expected a camera or "
            "a video; leave it out."
        )
    check_installed("cv2", "pip install 'stpm[live]'", "--keep")
    from stpm.runtime.live.keep import KeptFrames

    return KeptFrames(plan.keep, plan.keep_max_mb, plan.record)


def _open_cameras(
    plans: Sequence[CameraPlan], threads: int, level: float, record: Record
) -> list[Camera]:
    opened: dict[tuple[Path, str | None], Detector] = {}

    def detector(path: Path, engine: str | None) -> Detector:
        if (path, engine) not in opened:
            opened[path, engine] = Detector(path, engine, threads=threads)
        return opened[path, engine]

    cameras = []
    for plan in plans:
        options = SourceOptions(
            parse_seconds(plan.every) if plan.every else 0.0,
            plan.move,
            record.recorded,
            plan.exposure_us,
            plan.pixel_format,
            plan.trigger,
        )
        main = detector(plan.bundle, plan.engine)
        calibration = main.calibration
        cameras.append(
            Camera(
                plan.name,
                open_source(plan.source, options),
                main,
                None if plan.shadow is None else detector(plan.shadow, plan.engine),
                Drift(calibration.scores, calibration.image_statistics, level),
            )
        )
    return cameras


def _name_and_address(text: str, number: int) -> tuple[str, str]:
    match = re.fullmatch(r"([A-Za-z0-9_-]{1,64})=(.+)", text)
    return (match[1], match[2]) if match else (f"camera{number}", text)


def _printer(as_json: bool) -> Callable[[Event], None]:
    def tell(event: Event) -> None:
        entry = event.entry
        if as_json:
            say(json.dumps(entry))
            return
        verdict = "ok" if entry["verdict"] == "ok" else entry["verdict"].upper()
        score = f"{entry['score']:.6g}  {entry['threshold']:.6g}" if "score" in entry else "-  -"
        say(f"{verdict:9}  {score}  {entry['camera']}  {entry['image']}")

    return tell


def _drift_teller() -> Callable[[Event], None]:
    """Say it once when a test of a camera finds that the world has changed."""
    told: set[tuple[str, str]] = set()
    lock = threading.Lock()

    def tell(event: Event) -> None:
        camera = event.entry["camera"]
        for name in event.entry.get("drift", {}).get("alarms", ()):
            with lock:
                is_new = (camera, name) not in told
                told.add((camera, name))
            if is_new:
                note(
                    f"{camera}: the {name} has changed since calibration; check lighting, "
                    "lens and parts, and calibrate again"
                )

    return tell


main = command(live)
