"""Results of each kind, measured on the tests' tiny model, and a page read back."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path

import pytest

from stpm.benchmarks.measure.accuracy import accuracy_result
from stpm.benchmarks.measure.latency import LatencyPlan, latency_result


@pytest.fixture(scope="session")
def accuracy_content(
    checkpoint_path: Path,
    bundle_path: Path,
    data_root: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> str:
    """JSON of kind "accuracy" of a checkpoint and a bundle, with a gallery."""
    gallery = tmp_path_factory.mktemp("gallery")
    models = [checkpoint_path, bundle_path]
    return json.dumps(accuracy_result(models, data_root, gallery=gallery))


@pytest.fixture(scope="session")
def latency_content(bundle_path: Path) -> str:
    """JSON of kind "latency" over two batches, image sizes and numbers of streams."""
    plan = LatencyPlan(
        [bundle_path],
        ["onnxruntime"],
        ["single_stream", "multi_stream"],
        image_sizes=[(64, 64), (96, 128)],
        batches=(1, 2),
        streams=(1, 2),
    )
    return json.dumps(latency_result(plan, [], images=2, rounds=2))


@pytest.fixture(scope="session")
def peers_content(latency_content: str) -> str:
    """JSON of kind "peers" with one that is right and slower, one that is wrong, one left out."""
    head = json.loads(latency_content)
    case = head.pop("cases")[0]
    timing = {key: case[key] for key in ("latency_ms", "images_per_second", "steadiness")}
    timing["rounds_ms"] = case["rounds_ms"]
    rows = (
        ("weave.stpm onnxruntime", 1.0, 1e-6, True),
        ("torch eager", 2.5, 0.0, True),
        ("quick one", 0.5, 0.7, False),
    )
    peers = [
        {
            "name": name,
            "precision": "fp32",
            "ratio": {"median": ratio, "low": ratio * 0.9, "high": ratio * 1.1},
            "agreement": {
                "factor": 1.0,
                "rank_correlation": 1.0,
                "map_difference": difference,
                "score_difference": difference,
            },
            "image_auroc": 0.875,
            "correct": correct,
            **timing,
        }
        for name, ratio, difference, correct in rows
    ]
    left_out = [{"name": "anomalib", "reason": "is not installed"}]
    content = head | {"kind": "peers", "peers": peers, "left_out": left_out}
    content |= {"reference": rows[0][0], "image_count": 8, "image_size": [64, 64]}
    return json.dumps(content | {"paper": {"STPM": 10, "STAD": 223, "SPADE": 5626}})


@pytest.fixture
def results(
    accuracy_content: str, latency_content: str, peers_content: str, tmp_path: Path
) -> dict[str, Path]:
    """Result files by kind, to read and to change."""
    contents = {"accuracy": accuracy_content, "latency": latency_content, "peers": peers_content}
    paths = {kind: tmp_path / f"{kind}.json" for kind in contents}
    for kind, content in contents.items():
        paths[kind].write_text(content)
    line = {
        "axis": "levels",
        "cell": "2,3",
        "category": "weave",
        "seed": 0,
        "epochs": 2,
        "metrics": {
            "image_auroc": 0.8125,
            "pixel_auroc": 0.91,
            "aupro": None,
            "pro_rescaled": None,
        },
    }
    paths["ablation"] = tmp_path / "results.jsonl"
    paths["ablation"].write_text(json.dumps(line) + "\n")
    return paths


class Page(HTMLParser):
    """A page's tables by caption, tags with attributes, and text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._cell: str | None = None
        self._rows: list[list[str]] = []
        self._caption, self._in_caption = "", False
        self.feed(path.read_text())
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "table":
            self._rows = []
        elif tag == "tr":
            self._rows.append([])
        elif tag in ("th", "td"):
            self._cell = ""
        elif tag == "caption":
            self._caption, self._in_caption = "", True
        elif tag == "small" and self._cell is not None:
            self._cell += "\n"

    def handle_endtag(self, tag: str) -> None:
        if tag in ("th", "td") and self._cell is not None:
            self._rows[-1].append(self._cell)
            self._cell = None
        elif tag == "caption":
            self._in_caption = False
        elif tag == "table":
            self.tables[self._caption] = self._rows

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._cell is not None:
            self._cell += data
        elif self._in_caption:
            self._caption += data


@pytest.fixture
def read_page() -> type[Page]:
    """Read a page back."""
    return Page
