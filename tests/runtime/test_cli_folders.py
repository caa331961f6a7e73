"""`stpm-run` on people's folders, lists and terminals, as a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

PIXELS = np.random.default_rng(0).integers(0, 256, (20, 24, 3), np.uint8)
COMMAND = [sys.executable, "-c", "from stpm.runtime.cli import main; main()"]


def run(
    *arguments: object, stdin: bytes = b"", **environment: str
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*COMMAND, *map(str, arguments), "--engine", "onnxruntime"],
        input=stdin,
        capture_output=True,
        check=False,
        timeout=120,
        env=os.environ | environment,
    )


def save(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(PIXELS).save(path)


def last_line(done: subprocess.CompletedProcess[bytes]) -> str:
    return done.stderr.decode().splitlines()[-1]


def test_the_end_says_what_was_scored_left_out_and_refused(
    bundle_path: Path, tmp_path: Path
) -> None:
    save(tmp_path / "a.png", tmp_path / "b/c.webp", tmp_path / "b/.d.png")
    for name in ("e.gif", "f.gif", "b/g.txt"):
        (tmp_path / name).touch()
    (tmp_path / "h.png").write_text("no image")
    done = run(bundle_path, tmp_path, "--json")
    assert done.returncode == 1
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["image"] for line in lines] == [str(tmp_path / n) for n in ("a.png", "b/c.webp")]
    anomalous = sum(line["is_anomalous"] for line in lines)
    assert f"error: {tmp_path / 'h.png'}: not an image" in done.stderr.decode()
    assert last_line(done) == (
        f"scored 2, of which anomalous {anomalous}; left out 3 (2 .gif, 1 .txt); refused 1"
    )


def test_saved_pictures_below_the_folder_are_not_scored(bundle_path: Path, tmp_path: Path) -> None:
    save(tmp_path / "line/a.png", tmp_path / "line/b/c.png")
    out = tmp_path / "line/pictures"
    first, second = (run(bundle_path, tmp_path / "line", "--save", out) for _ in range(2))
    assert len(list(out.rglob("*.png"))) == 6
    assert first.stdout == second.stdout
    assert len(first.stdout.splitlines()) == 2
    done = run(bundle_path, tmp_path / "line", "--save", tmp_path / "line")
    assert done.returncode == 1
    assert "matches no image outside the folder of --save" in last_line(done)


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "utf-8"])
def test_a_name_that_the_output_lacks_is_escaped(
    bundle_path: Path, tmp_path: Path, encoding: str
) -> None:
    save(tmp_path / "a.png", tmp_path / "部品.png")
    (tmp_path / "ä壊.png").write_text("no image")
    done = run(bundle_path, tmp_path, PYTHONIOENCODING=encoding)
    shown, broken = (
        name.encode(encoding, "backslashreplace").decode(encoding) for name in ("部品", "ä壊")
    )
    assert done.returncode == 1
    assert f"{tmp_path}/{shown}.png" in done.stdout.decode(encoding).splitlines()[1]
    assert f"{tmp_path}/{broken}.png: not an image" in done.stderr.decode(encoding)


def test_a_list_with_a_mark_of_its_encoding(bundle_path: Path, tmp_path: Path) -> None:
    save(tmp_path / "部品.png")
    for encoding in ("utf-8-sig", "utf-16"):
        listed = f"{tmp_path / '部品.png'}\r\n".encode(encoding)
        done = run(bundle_path, "-", "--json", stdin=listed)
        assert json.loads(done.stdout)["image"] == str(tmp_path / "部品.png")


def test_a_name_too_long_for_pictures_is_said(bundle_path: Path, tmp_path: Path) -> None:
    long = tmp_path / f"{'x' * 250}.png"
    save(long)
    done = run(bundle_path, tmp_path, "--save", tmp_path / "out")
    assert done.returncode == 0
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert [name.rpartition("_")[2] for name in names] == ["heatmap.png", "mask.png", "overlay.png"]
    stem = names[0].removesuffix("_heatmap.png")
    assert f"{long}: its name is too long for picture files; their names begin with {stem}" in (
        done.stderr.decode().splitlines()
    )
