"""The page of a fleet: categories, cameras and the paper's tables, from one command."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("ray")
TIMEOUT_S = 500
CAMERAS = ("left", "top")
CATEGORIES = ("bottle", "screw")


def test_one_command_gives_tables_means_and_worst_images(
    data_root: Path, teacher_file: Path, tmp_path: Path
) -> None:
    for camera in CAMERAS:
        for category in CATEGORIES:
            shutil.copytree(data_root / "weave", tmp_path / "sets" / camera / category)
    plan = tmp_path / "fleet.toml"
    plan.write_text(
        f"""
cameras = ["left", "top"]
[products]
mvtec = {{ data = "sets/{{camera}}", category = "*" }}
[train]
epochs = 1
input-size = 64
batch-size = 4
teacher-weights = "{teacher_file}"
device = "cpu"
precision = "fp32"
[export]
engine = ["onnxruntime"]
false-alarm-rate = 0.3
"""
    )
    words = [sys.executable, "-m", "stpm.fleet", "train", str(plan)]
    done = subprocess.run(words, check=True, timeout=TIMEOUT_S, capture_output=True, text=True)
    rows = json.loads((tmp_path / "fleet/fleet.json").read_text())["fleet"]
    names = [f"{category}-{camera}-0" for camera in CAMERAS for category in CATEGORIES]
    assert [row["name"] for row in rows] == names
    for row in rows:
        assert f"{row['category']}-{row['camera']}-0" == row["name"]
        images = tmp_path / "sets" / row["camera"] / row["category"] / "test"
        assert [d["name"].partition("/")[0] for d in row["doubtful"]] == ["good", "hole"] * 2
        assert all((images / f"{d['name']}.png").is_file() for d in row["doubtful"])
        # Of good parts the highest score, of defects the lowest.
        accuracy = json.loads((tmp_path / "fleet" / row["name"] / "accuracy.json").read_text())
        measured = accuracy["categories"][row["category"]][0]["images"]
        good, hole = (
            [i["score"] for i in measured if i["name"].startswith(kind)]
            for kind in ("good", "hole")
        )
        assert row["doubtful"][0]["score"] == pytest.approx(max(good), rel=1e-5)
        assert row["doubtful"][1]["score"] == pytest.approx(min(hole), rel=1e-5)
    page = (tmp_path / "fleet/report.html").read_text(encoding="utf-8")
    assert page.count("data:image/webp;base64,") == 4 * len(rows)
    for title in ("Table 1: image AUROC", "Table 2: pixel AUROC, 2 of 15", "Table 3: AUPRO, 2 of"):
        assert f"The paper's {title}" in page.replace("&#39;", "'")
    for name in names:
        assert f"{name.partition('-')[0]}, {name}.stpm" in page
    assert "Table 3: AUPRO" in done.stdout
