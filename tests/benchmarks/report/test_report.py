"""The report holds what the result files say, all of it, and nothing that they smuggle in."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from stpm.benchmarks.cli import main
from stpm.benchmarks.records.result_file import KINDS, read_lines, read_result
from stpm.benchmarks.report.chapters import TITLES, blocks_of
from stpm.benchmarks.report.document import SIZE_LIMIT, write_report
from stpm.benchmarks.report.gallery import galleries, groups_of
from stpm.benchmarks.report.provenance import provenance_tables
from stpm.benchmarks.report.tables import Table, heading
from stpm.benchmarks.report.tables_accuracy import ablation_tables, accuracy_tables
from stpm.benchmarks.report.tables_speed import latency_tables, peers_tables

ReadPage = Callable[[Path], Any]
LINE = {"axis": "levels", "cell": "2", "category": "nut", "seed": 0, "epochs": 1, "metrics": {}}
TABLES = {"accuracy": accuracy_tables, "latency": latency_tables, "peers": peers_tables}
HOSTILE = (
    "<script>alert(1)</script>\"'><img src=x onerror=alert(2)> $\\bad{$ `x` |_y* [z](http://z)"
)


def report(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(main, ["report", *map(str, arguments)])
    return result.exit_code, result.stderr


def tables_of(paths: dict[str, Path]) -> list[Table]:
    contents = {kind: json.loads(paths[kind].read_text()) for kind in TABLES}
    tables = [table for kind in TABLES for table in TABLES[kind](contents[kind])]
    tables += ablation_tables(read_lines(paths["ablation"]))
    tables += provenance_tables([(paths[kind].name, contents[kind]) for kind in TABLES])
    return [table for table in tables if table.rows]


def test_the_page_holds_every_figure_of_the_results(
    results: dict[str, Path], tmp_path: Path, read_page: ReadPage
) -> None:
    out = tmp_path / "report.html"
    assert report(*results.values(), "-o", out) == (0, f"{out}: written\n")
    page = read_page(out)
    for table in tables_of(results):
        head, *rows = page.tables[heading(table.title)]
        assert head == [column or "name" for column in table.columns]
        for shown, row in zip(rows, table.rows, strict=True):
            first, *others = shown
            assert first.removesuffix("\npublished" if row.published else "") == row.cells[0]
            assert others == list(row.cells[1:])
    row = json.loads(results["accuracy"].read_text())["categories"]["weave"][1]
    shown = next(rows for title, rows in page.tables.items() if title.startswith("Weave, 8"))
    for metric in ("image_auroc", "pixel_auroc", "aupro"):
        assert any(f"{row['overall'][metric]:.4f}" in cell for line in shown for cell in line)
    case = json.loads(results["latency"].read_text())["cases"][0]
    times = page.tables["Latency of one query, from frame in memory to decision"][1]
    assert times[1:5] == [f"{case['latency_ms'][p]:.2f}" for p in ("p50", "p90", "p99", "max")]


def test_markdown_holds_the_same_tables_and_verdict(
    results: dict[str, Path], tmp_path: Path, read_page: ReadPage
) -> None:
    page, text = tmp_path / "report.html", tmp_path / "report.md"
    write_report(list(results.values()), page)
    write_report(list(results.values()), text)
    lines = text.read_text().splitlines()
    for table in tables_of(results):
        start = lines.index(f"#### {_escaped(heading(table.title))}") + 2
        shown = lines[start : start + 2 + len(table.rows)]
        for line, row in zip(shown[2:], table.rows, strict=True):
            cells = (_escaped(cell).replace("\n", "<br>") for cell in row.cells)
            assert line == f"|{''.join(f' {cell} |' for cell in cells)}"
    questions = re.findall(r"^### (.*\?)$", text.read_text(), re.MULTILINE)
    assert len(questions) == 10
    shown_text = read_page(page).text
    assert all(question in shown_text for question in questions)


def _escaped(text: str) -> str:
    return re.sub(r"([\\`*\[\]<>|&#~$])", r"\\\1", text)


@pytest.mark.parametrize("kind", ["accuracy", "latency", "peers", "ablation"])
@pytest.mark.parametrize("suffix", [".html", ".md"])
def test_each_kind_makes_a_report_alone(
    kind: str, suffix: str, results: dict[str, Path], tmp_path: Path
) -> None:
    out = tmp_path / f"report{suffix}"
    assert report(results[kind], "-o", out)[0] == 0
    titles = {"accuracy": "Accuracy", "latency": "Speed", "peers": "Other programs"}
    title = titles.get(kind, "Ablations")
    wanted = f'id="{kind}-title">{title}</h2>' if suffix == ".html" else f"\n## {title}\n"
    assert wanted in out.read_text()
    assert ("not measured" in out.read_text().lower()) == (kind != "ablation")


def test_the_page_needs_nothing_from_elsewhere(
    results: dict[str, Path], tmp_path: Path, read_page: ReadPage
) -> None:
    out = tmp_path / "report.html"
    write_report(list(results.values()), out)
    page = read_page(out)
    links = [attrs[key] for _, attrs in page.tags for key in ("src", "href") if key in attrs]
    assert links
    assert all(link and link.startswith(("#", "data:image/webp;base64,")) for link in links)
    assert not {tag for tag, _ in page.tags} & {"link", "iframe", "object", "base"}
    assert not re.search(r"url\((?!#)|@import", out.read_text())
    (policy,) = [a["content"] for t, a in page.tags if t == "meta" and "http-equiv" in a]
    assert policy is not None
    assert policy.startswith("default-src 'none'")


def test_ids_are_unique_and_references_lead_somewhere(
    results: dict[str, Path], tmp_path: Path, read_page: ReadPage
) -> None:
    out = tmp_path / "report.html"
    write_report(list(results.values()), out)
    tags = read_page(out).tags
    ids = [attrs["id"] for _, attrs in tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    for key in ("aria-labelledby", "href"):
        found = {a[key] for _, a in tags if key in a}
        assert {str(link).removeprefix("#") for link in found} <= set(ids)


def _rename(value: Any, old: str) -> Any:
    """Put the hostile name wherever a text holds the old one, keys included."""
    if isinstance(value, dict):
        return {_rename(key, old): _rename(item, old) for key, item in value.items()}
    if isinstance(value, list):
        return [_rename(item, old) for item in value]
    return value.replace(old, HOSTILE) if isinstance(value, str) else value


def test_hostile_names_stay_text(
    results: dict[str, Path], tmp_path: Path, read_page: ReadPage
) -> None:
    for path in results.values():
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        changed = [_rename(_rename(line, "weave"), "hole") for line in lines]
        path.write_text("\n".join(map(json.dumps, changed)))
    page_path, text_path = tmp_path / "report.html", tmp_path / "report.md"
    write_report(list(results.values()), page_path)
    write_report(list(results.values()), text_path)
    page = read_page(page_path)
    assert HOSTILE in page.text
    assert [tag for tag, _ in page.tags].count("script") == 1
    assert not [a for _, a in page.tags if any(name.startswith("on") for name in a)]
    assert all(str(a["src"]).startswith("data:") for tag, a in page.tags if tag == "img")
    text = text_path.read_text().split("## Reproduce")[0]  # commands stand in a block of code
    assert not re.search(r"(?<!\\)<(?!br>)", text)
    assert not re.search(r"(?<!\\)\]\(", text)


def test_the_gallery_shows_the_doubtful_first(
    results: dict[str, Path], tmp_path: Path, read_page: ReadPage
) -> None:
    out = tmp_path / "report.html"
    write_report([results["accuracy"]], out)
    entries = json.loads(results["accuracy"].read_text())["gallery"]["weave"]
    shown = [a["alt"] for tag, a in read_page(out).tags if tag == "img"]
    names = [f"{e['kind']}/{Path(e['picture']).stem}" for e in entries]
    assert shown == [f"Input, heat map and overlay of {name}" for name in names]


def test_missing_and_broken_pictures_are_said(
    results: dict[str, Path], tmp_path: Path, read_page: ReadPage
) -> None:
    content = json.loads(results["accuracy"].read_text())
    content["gallery"]["weave"][0]["picture"] = "/nowhere/000.png"
    (tmp_path / "broken.png").write_bytes(b"no picture")
    content["gallery"]["weave"][1]["picture"] = "broken.png"
    results["accuracy"].write_text(json.dumps(content))
    write_report([results["accuracy"]], tmp_path / "report.html")
    page = read_page(tmp_path / "report.html")
    assert "Missing at the path in the result file, or not an image: 2 of 8." in page.text
    assert sum(tag == "img" for tag, _ in page.tags) == 6


def test_without_pictures_the_page_says_how_to_make_them(
    results: dict[str, Path], tmp_path: Path, read_page: ReadPage
) -> None:
    content = json.loads(results["accuracy"].read_text())
    results["accuracy"].write_text(json.dumps(content | {"gallery": {}}))
    write_report([results["accuracy"]], tmp_path / "report.html")
    assert "--gallery DIR" in read_page(tmp_path / "report.html").text


def test_large_pictures_are_shrunk_to_the_limit(
    results: dict[str, Path], tmp_path: Path, read_page: ReadPage
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (450, 1600, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    content = json.loads(results["accuracy"].read_text())
    (entry, *_) = content["gallery"]["weave"]
    entries = [entry | {"picture": "noise.png"}] * 20
    content["gallery"] = {"weave": entries}
    results["accuracy"].write_text(json.dumps(content))
    out = tmp_path / "report.html"
    write_report(list(results.values()), out)
    assert out.stat().st_size < SIZE_LIMIT
    shown = [attrs for tag, attrs in read_page(out).tags if tag == "img"]
    assert len(shown) == 16
    assert all(int(attrs["width"]) < 1000 for attrs in shown)


def test_pictures_without_room_are_counted(results: dict[str, Path]) -> None:
    content = json.loads(results["accuracy"].read_text())
    (gallery,) = galleries(groups_of(content, Path()), 8 * 100)
    assert (gallery.pictures, gallery.unread, gallery.too_large) == ((), 0, 8)


def _without(key: str) -> Callable[[dict[str, Any]], object]:
    return lambda content: content.pop(key)


def _with(**fields: object) -> Callable[[dict[str, Any]], object]:
    return lambda content: content.update(fields)


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("accuracy", _without("categories")),
        ("accuracy", _without("models")),
        ("accuracy", _with(categories=["weave"])),
        ("accuracy", _with(categories={"weave": [{}]})),
        ("accuracy", _with(gallery=["x"])),
        ("accuracy", _with(gallery={"weave": [{"picture": 3}]})),
        ("accuracy", _with(environment=None)),
        ("latency", _without("rates")),
        ("latency", _with(cases=[{"scenario": "single_stream"}])),
        ("latency", _with(created=3)),
        ("peers", _without("left_out")),
        ("peers", _with(peers=[])),
    ],
)
def test_a_file_that_is_not_what_it_says_is_one_sentence(
    kind: str,
    change: Callable[[dict[str, Any]], object],
    results: dict[str, Path],
    tmp_path: Path,
) -> None:
    content = json.loads(results[kind].read_text())
    change(content)
    results[kind].write_text(json.dumps(content))
    out = tmp_path / "out" / "report.html"
    out.parent.mkdir()
    code, stderr = report(*results.values(), "-o", out)
    assert code == 1
    assert stderr.startswith(f"error: {results[kind]}: is not a result of kind '{kind}' (")
    assert stderr.count("\n") == 1
    assert list(out.parent.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("a.json", "{", "is not JSON"),
        ("a.json", '{"schema_version": 9, "kind": "accuracy"}', "version 9"),
        ("a.jsonl", "{}\n", "line 1 is not a result of an ablation"),
        ("a.jsonl", '{"axis": 1', "line 1 is not a result of an ablation"),
        ("a.jsonl", json.dumps(LINE | {"metrics": {"aupro": "x"}}), "line 1 is not a result"),
    ],
)
def test_a_malformed_file_leaves_the_old_report(
    name: str, text: str, expected: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(text)
    out = tmp_path / "report.html"
    out.write_text("old")
    code, stderr = report(tmp_path / name, "-o", out)
    assert code == 1
    assert expected in stderr
    assert stderr.count("\n") == 1
    assert out.read_text() == "old"


def test_a_file_of_another_kind_is_named_and_left_out(
    results: dict[str, Path], tmp_path: Path, read_page: ReadPage
) -> None:
    other, out = tmp_path / "other.json", tmp_path / "report.html"
    other.write_text('{"kind": "weather"}')
    code, stderr = report(other, results["latency"], "-o", out)
    first, second = stderr.splitlines()
    assert (code, second) == (0, f"{out}: written")
    assert first.startswith(f"left out: {other}: got a file of kind 'weather'")
    assert "Fresh process" in read_page(out).tables


RESULTS = Path(__file__).parents[3] / "benchmarks/results"


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.json")), ids=lambda path: path.name)
def test_every_kept_result_has_a_chapter(path: Path) -> None:
    record = read_result(path)
    assert any(table.rows for block in blocks_of(record, "f0") for table in block.tables)


def test_every_kind_of_result_is_kept_once() -> None:
    assert {read_result(path)["kind"] for path in RESULTS.glob("*.json")} == KINDS.keys()
    assert KINDS.keys() < TITLES.keys()


def test_ablations_of_several_files_share_a_table(
    results: dict[str, Path], tmp_path: Path, read_page: ReadPage
) -> None:
    second = tmp_path / "second.jsonl"
    second.write_text(results["ablation"].read_text().replace("2,3", "2,3,4"))
    write_report([results["ablation"], second], tmp_path / "report.html")
    tables = read_page(tmp_path / "report.html").tables
    assert [row[0] for row in tables["ablation: levels"]] == ["name", "2,3", "2,3,4"]


@pytest.mark.parametrize(
    ("out", "expected"),
    [("report.pdf", "expected .html or .md"), ("no/report.html", "there is no such folder")],
)
def test_an_unusable_output_is_one_sentence(
    out: str, expected: str, results: dict[str, Path], tmp_path: Path
) -> None:
    code, stderr = report(results["accuracy"], "-o", tmp_path / out)
    assert code == 1
    assert expected in stderr
    assert not (tmp_path / out).exists()


def test_a_missing_file_is_one_sentence(tmp_path: Path) -> None:
    code, stderr = report(tmp_path / "a.json", "-o", tmp_path / "report.html")
    assert (code, stderr.count("\n")) == (1, 1)
    assert "cannot be read" in stderr


def test_the_same_results_give_the_same_page(results: dict[str, Path], tmp_path: Path) -> None:
    for name in ("a.html", "b.html"):
        write_report(list(results.values()), tmp_path / name)
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


@pytest.mark.parametrize(
    ("title", "shown"),
    [
        ("latency of one query", "Latency of one query"),
        ("weave, 8 test images", "Weave, 8 test images"),
        ("bottle_rd.stpm, 3 images", "bottle_rd.stpm, 3 images"),
        ("", ""),
    ],
)
def test_names_of_files_stay_as_they_are(title: str, shown: str) -> None:
    assert heading(title) == shown


@pytest.mark.parametrize("suffix", [".html", ".md"])
def test_measurements_alone_are_not_judged(
    suffix: str, results: dict[str, Path], tmp_path: Path
) -> None:
    out = tmp_path / f"report{suffix}"
    assert report(results["ablation"], "-o", out)[0] == 0
    text = out.read_text()
    assert "none of them is here" in text
    assert ">Verdict<" not in text
    assert "## Verdict" not in text
