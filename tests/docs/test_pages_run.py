"""Everything between fences in README and on the pages is run: page by page, in order."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
from furniture import copy_of
from page_blocks import PAGES, ROOT, Block, blocks, commands, name_of
from page_readers import compile_block, read_block
from page_shell import Shell

from stpm.runtime import Detector
from stpm.runtime.images.preprocess import load_image

PACKAGES = "scripts/test-packages installs what it says, a network is not asked for here"
GPU = "needs a GPU"
DEMO = "scripts/test runs it"
LIBSTPM = "scripts/test-c builds, installs and consumes libstpm"
TRITON = "needs a server; tests/runtime/serve/test_triton_server.py asks a real one"
STORE = "needs a store; tests/fleet/test_score.py scores from one on the loopback"
ALIGN = "needs parts that lie with play; tests/runtime/site/test_calibrate_align.py has some"
GREY = "needs images of a grey camera; tests/export/test_grey.py exports for one"

LEFT_OUT = {
    ("README.md", "pip install"): PACKAGES,
    ("README.md", "stpm-serve verify"): TRITON,
    ("README.md", "stpm-fleet train"): "docs/scale.md has it run",
    ("docs/benchmarks.md", "python -m venv"): PACKAGES,
    ("docs/benchmarks.md", "stpm-bench live"): (
        "takes minutes; tests/benchmarks/measure/live/test_run.py loads a station for seconds"
    ),
    ("docs/benchmarks.md", "stpm-bench align"): ALIGN,
    ("docs/c.md", "apt-get install"): PACKAGES,
    ("docs/c.md", "pip install"): PACKAGES,
    ("docs/c.md", "cmake "): LIBSTPM,
    ("docs/c.md", "find_package(stpm"): LIBSTPM,
    ("docs/cpu.md", "python -m stpm.benchmarks.studies.graph_ablation"): (
        "builds the graph in every variant, which takes minutes; "
        "tests/benchmarks/studies/test_graph_ablation.py does so on little"
    ),
    ("docs/data.md", "for video in"): "ffmpeg is another program",
    ("docs/export.md", "pip install"): PACKAGES,
    ("docs/export.md", "stpm-export --ckpt bottle.pt --grey"): GREY,
    ("docs/gpu.md", "stpm-export --ckpt bottle.pt --fp16 --engine tensorrt "): GPU,
    ("docs/gpu.md", "maps, scores = detector.score_on_device"): GPU,
    ("docs/gpu.md", "scripts/device-wheels"): "downloads wheels",
    ("docs/gpu.md", "stpm-train --data mvtec --category bottle --device cuda"): GPU,
    ("docs/gpu.md", "WHEELS=wheels benchmarks/device.sh"): GPU,
    ("docs/index.md", "pip install"): PACKAGES,
    ("docs/index.md", "scripts/demo"): DEMO,
    ("docs/scale.md", "pip install"): PACKAGES,
    ("docs/live.md", "stpm-bench drift"): (
        "needs 20 good images, and minutes; tests/benchmarks/studies/test_drift.py runs it"
    ),
    ("docs/scale.md", "RAY_ADDRESS="): "needs a cluster",
    ("docs/scale.md", "stpm-fleet score s3:"): STORE,
    ("docs/scale.md", "stpm-run s3:"): STORE,
    ("docs/scale.md", "stpm-calibrate bottle.stpm s3:"): STORE,
    ("docs/scale.md", "python -c"): STORE,
    ("docs/scale.md", "stpm-fleet scaling"): "tests/fleet/test_scaling.py runs it",
    ("docs/serve.md", "pip install"): PACKAGES,
    ("docs/serve.md", "stpm-serve verify"): TRITON,
    ("docs/serve.md", "stpm-serve triton bottle.stpm models/ --name bottle_trt"): (
        "needs a bundle with a plan, which a GPU builds"
    ),
    ("docs/site.md", "pip install"): PACKAGES,
    ("docs/site.md", "stpm-calibrate bottle.stpm good/ --align"): ALIGN,
    ("docs/site.md", "stpm-calibrate bottle.stpm good/ --no-align"): ALIGN,
    ("docs/site.md", "stpm-export --ckpt bottle.pt --grey"): GREY,
    ("docs/site.md", "stpm-bench tiles"): (
        "needs bundles of tiles; tests/benchmarks/measure/test_tiles.py measures small ones"
    ),
    ("docs/serve.md", "curl"): TRITON,
}
"""What is not run: (page, first words of a command or of a block), and the reason."""

SHORTER = (
    ("stpm-train", "--overwrite --device cpu --epochs 1"),
    ("stpm-train (?!.*(--method stad|--input-size|--tile))", "--input-size 64"),
    ("stpm-train .*--method stad", "--set patch-sizes=17 --set students=1"),
    ("stpm-train .*--method stad", "--input-size 12 --set teacher-steps=2 --set teacher-batch=4"),
    ("stpm-train .*--method spade", "--set neighbours=5"),
    ("stpm-train .*--tile", "--tile 64"),
    ("stpm-train .*--every", "--every 1"),
    ("stpm-train .*--train-share", "--train-share 0.5"),
    ("stpm-export", "--overwrite"),
    ("stpm-export (?!.*--engine)", "--engine onnxruntime"),
    ("stpm-export .*--camera-size", "--camera-size 64x64"),
    ("stpm-export .*--distil", "--distil 1"),
    ("stpm-export .*--tile", "--tile 256"),
    ("stpm-export .*--calibrate", "--false-alarm-rate 0.1"),
    ("stpm-calibrate .*--false-alarm-rate", "--false-alarm-rate 0.1 --warn-rate 0.2"),
    ("stpm-bench (latency|peers)", "--count 4 --rounds 2"),
    ("stpm-bench latency", "--engine onnxruntime"),
    ("stpm-bench latency (?!.*--scenario)", "--scenario single_stream"),
    ("stpm-bench peers (?!.*--bundles-only)", "--bundles-only"),
    ("stpm-bench plan", "--cameras 1 --size 64x64 --cycles 3 --engine onnxruntime --threads 1"),
    ("stpm-bench baselines", "--vectors 100 --epochs 1"),
    ("stpm-bench ablation", "--category bottle --epochs 1 --input-size 64"),
    ("stpm-bench ablation levels", "--cell 2"),
    ("stpm-bench ablation backbone", "--cell ResNet-18"),
    ("stpm-bench ablation training-share", "--cell 100%"),
    ("stpm-bench ablation teacher", "--cell CIFAR-10"),
    (".*training_speed", "--rounds 1 --input-size 64"),
    ("pytest", "--benchmark-min-rounds 1 --benchmark-max-time 0.01"),
)
"""What is added to a command that begins so: few images, small ones, and one epoch."""

STAND_INS = {
    "rtsp://camera/stream": "camera.avi",
    "usb:0": "camera.avi",
    "mqtt://broker/line1": "csv:line1.csv",
    "127.0.0.1:8080": "127.0.0.1:0",
    "pytest benchmarks/": f"pytest {ROOT}/benchmarks/",
    "plate.stpm line/": "plate.stpm photos/plate/",
}
"""What a page names and is not here, and what stands for it."""

EXIT_CODES = {
    ("docs/run.md", "stpm-run bottle.stpm part.png --fail-on-anomaly"): (3,),
    ("docs/live.md", "stpm-run bottle_new.stpm --replay"): (1,),
    ("docs/export.md", "stpm-export --ckpt bottle.pt --int8 --data"): (0, 1),
    ("docs/cpu.md", "stpm-export --ckpt screw.pt --int8 --data"): (0, 1),
    ("docs/live.md", "stpm-bench plan"): (0, 1),
    ("docs/benchmarks.md", "stpm-bench plan"): (0, 1),
}
"""Not 0, as the page says: an anomaly, verdicts that differ, INT8 refused for its accuracy, a cycle
that no arrangement holds."""

CLOCK_STEP_S = 0.1
"""A file's time may be that much earlier than the clock was."""
SHOWN = ("", "text")
"""Languages of what is to be read alone: layouts of folders, and what a command prints."""


def parts(block: Block) -> list[str]:
    """What of a block is run by itself: each command of a shell, else the whole."""
    return list(commands(block)) if block.language == "sh" else [block.text]


def is_left_out(page: str, text: str) -> bool:
    return any(page == where and text.startswith(begin) for where, begin in LEFT_OUT)


def shortened(command: str) -> str:
    command = re.sub(r"\s+# .*$", "", command)
    for name, stand_in in STAND_INS.items():
        command = command.replace(name, stand_in)
    return " ".join([command, *(added for begin, added in SHORTER if re.match(begin, command))])


def expected_codes(page: str, command: str) -> tuple[int, ...]:
    for (where, begin), codes in EXIT_CODES.items():
        if page == where and command.startswith(begin):
            return codes
    return (0,)


def files_named(command: str) -> list[str]:
    """What a command says that it writes: by its flags, and in its comment."""
    text, _, comment = command.partition(" # ")
    return [
        *re.findall(r"(?:--out|--save|-o|>) (\S+)", text),
        *re.findall(r"-> ([\w.]+\w)", comment),
        *re.findall(r"\w+/\S+\.\w+", comment),
    ]


def run_command(block: Block, command: str, shell: Shell) -> None:
    begun = time.time() - CLOCK_STEP_S
    code, said = shell.run(shortened(command))
    wanted = expected_codes(block.page, command)
    assert code in wanted, f"{block.place}: {command}\nended with {code}, not {wanted}:\n{said}"
    for path in map(Path, files_named(command) if code == 0 else ()):
        assert path.exists(), f"{block.place}: {command}\ndid not write {path}"
        assert path.stat().st_mtime >= begun, f"{block.place}: {command}\nleft {path} as it was"


def run_python(block: Block, names: dict[str, object]) -> None:
    """Run it with what was said before it on its page, a detector, and images."""
    names.setdefault("detector", Detector("bottle.stpm"))
    names.setdefault("images", [load_image("part.png")] * 2)
    exec(compile(block.text, block.place, "exec"), names)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_what_a_page_says_runs(
    page: Path,
    furnished: Path,
    warm: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    copy_of(furnished, tmp_path)
    monkeypatch.chdir(tmp_path)
    shell = Shell(tmp_path, warm)
    names: dict[str, object] = {}
    for block in blocks(page):
        for part in parts(block):
            if block.language in SHOWN or is_left_out(block.page, part):
                continue
            match block.language:
                case "sh":
                    run_command(block, part, shell)
                case "python":
                    run_python(block, names)
                case "c" | "cpp":
                    compile_block(block)
                case "json" | "toml":
                    read_block(block)
                case _:
                    pytest.fail(f"{block.place}: {block.language} is nothing that can be run")


def test_every_fence_is_seen() -> None:
    for page in PAGES:
        fences = [x for x in page.read_text(encoding="utf-8").splitlines() if "```" in x]
        assert len(fences) == 2 * len(blocks(page)), page


def test_every_exception_is_of_something_on_a_page() -> None:
    found = [
        (block.page, part)
        for block in (block for page in PAGES for block in blocks(page))
        for part in parts(block)
    ]
    named = [*LEFT_OUT, *EXIT_CODES]
    stale: list[object] = [
        (page, begin)
        for page, begin in named
        if not any(page == where and text.startswith(begin) for where, text in found)
    ]
    run = [text for where, text in found if not is_left_out(where, text)]
    stale += [name for name in STAND_INS if not any(name in text for text in run)]
    stale += [begin for begin, _ in SHORTER if not any(re.match(begin, text) for text in run)]
    assert stale == []
