"""A report from result files: one page of HTML that needs nothing else, or Markdown."""

from __future__ import annotations

import base64
import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from stpm.benchmarks.records.result_file import (
    OtherKindError,
    Record,
    check_out,
    read_lines,
    read_result,
    write_whole,
)
from stpm.benchmarks.records.studies import AblationLine
from stpm.benchmarks.report.chapters import (
    TITLES,
    Block,
    Chapter,
    ablation_block,
    blocks_of,
    chapters,
)
from stpm.benchmarks.report.gallery import Gallery, Group, galleries, groups_of
from stpm.benchmarks.report.provenance import provenance_tables
from stpm.benchmarks.report.tables import Table, heading
from stpm.benchmarks.report.verdict import (
    Finding,
    KeyFigure,
    belong_together,
    machine,
    of_kind,
    summary,
)
from stpm.benchmarks.report.verdict_accuracy import accuracy_findings
from stpm.benchmarks.report.verdict_accuracy import key_figures as accuracy_key_figures
from stpm.benchmarks.report.verdict_speed import key_figures as speed_key_figures
from stpm.benchmarks.report.verdict_speed import speed_findings
from stpm.runtime.errors import DataError

STYLES = ("page", "verdict", "tables", "figures", "narrow_and_print")
"""Parts of the page's style, in their order: later ones may refine earlier ones."""
SIZE_LIMIT = 3_000_000
"""Bytes of a page."""
CAPTIONS = 100_000
"""Bytes of it that are kept for what surrounds the pictures."""
_NUMBER = re.compile(r"[<>~]?[-+\u2212]?\d[\d.,]*(e[-+]?\d+)?( ?%)?")

JUDGED = frozenset({"accuracy", "latency", "peers", "device"})
"""Kinds of results that answer whether a model ships."""
NOT_JUDGED = (
    "Whether a model ships is judged by the results of stpm-bench accuracy, latency and peers; "
    "none of them is here."
)
Results = Mapping[Path, Record]
"""Contents of result files."""


@dataclass(frozen=True)
class Report:
    """What both forms are rendered from.

    Attributes:
        title: the categories, or the models.
        created: of the newest result, in UTC; empty without one.
        summary: the verdict in a sentence.
        findings: questions with answers.
        key_figures: the first that a reader sees.
        chapters: what was measured.
        galleries: pictures by group; empty in Markdown.
        machines: hardware, the same once.
        provenance: tables about files, models and machines.
        commands: that made the results.
        method: paragraphs.
    """

    title: str
    created: str
    machines: list[str]
    summary: str
    findings: list[Finding]
    key_figures: list[KeyFigure]
    chapters: list[Chapter]
    provenance: list[Table]
    commands: list[str]
    method: list[str]
    galleries: Sequence[Gallery] = ()


def write_report(paths: Sequence[Path], out: Path) -> list[str]:
    """Render result files into one file, whole or not at all.

    Args:
        paths: result files, and `.jsonl` files with lines of ablations.
        out: ends in `.html`, or in `.md` for Markdown.

    Returns:
        A sentence about each file that is left out because it is of another kind.

    Raises:
        DataError: a file cannot be read or lacks what its kind holds, none is of a known kind, or
            the folder of `out` is missing.
    """
    check_out(out)
    if out.suffix not in (".html", ".md"):
        raise DataError(f"{out}: got a name ending in {out.suffix!r}, expected .html or .md.")
    blocks: list[tuple[str, Block]] = []
    results: dict[Path, Record] = {}
    pictures: list[Group] = []
    lines: list[AblationLine] = []
    left_out: list[str] = []
    for number, path in enumerate(dict.fromkeys(paths)):
        if path.suffix == ".jsonl":
            lines += read_lines(path)
            continue
        try:
            results[path] = content = read_result(path)
        except OtherKindError as error:
            left_out.append(str(error))
            continue
        blocks += [(content["kind"], block) for block in blocks_of(content, f"f{number}")]
        pictures += groups_of(content, path.parent)
    if left_out and not (results or lines):
        raise DataError(left_out[0])
    blocks += [("ablation", ablation_block(lines))] if lines else []
    report = assemble(results, blocks)
    write_whole(out, markdown(report) if out.suffix == ".md" else page(report, _titled(pictures)))
    return left_out


def _titled(groups: Sequence[Group]) -> list[Group]:
    """Name groups by their models as well where several have the same title."""
    times = Counter(group.title for group in groups)
    return [
        replace(group, title=f"{group.title}, {group.models}") if times[group.title] > 1 else group
        for group in groups
    ]


def assemble(results: Results, blocks: Sequence[tuple[str, Block]]) -> Report:
    """Put together what both forms show.

    Args:
        results: contents of result files.
        blocks: (kind, block) pairs.
    """
    contents = list(results.values())
    are_judged = any(content["kind"] in JUDGED for content in contents)
    findings = [*accuracy_findings(contents), *speed_findings(contents)] if are_judged else []
    findings += [belong_together(contents)] if contents else []
    return Report(
        title=_title(contents),
        created=max((content["created"] for content in contents), default=""),
        machines=list(dict.fromkeys(map(machine, contents))),
        summary=summary(findings) if are_judged else NOT_JUDGED,
        findings=findings,
        key_figures=[*accuracy_key_figures(contents), *speed_key_figures(contents)],
        chapters=chapters(blocks),
        provenance=provenance_tables([(path.name, c) for path, c in results.items()]),
        commands=list(dict.fromkeys(content["command"] for content in contents)),
        method=_asset("method.txt").strip().split("\n\n"),
    )


def _title(contents: Sequence[Record]) -> str:
    accuracies = of_kind(contents, "accuracy")
    names = [name for content in accuracies for name in content["categories"]]
    names = names or [name.split(".")[0] for content in contents for name in content["models"]]
    kinds = [TITLES[content["kind"]] for content in contents]
    return ", ".join(dict.fromkeys(names or kinds)) or TITLES["ablation"]


def markdown(report: Report) -> str:
    """Render Markdown, as GitHub shows it."""
    environment = _environment(autoescape=False, finalize=_markdown_text)
    return environment.get_template("report.md.j2").render(report=report)


def page(report: Report, pictures: Sequence[Group]) -> str:
    """Render one page of HTML, with pictures as large as the limit of its size allows.

    Args:
        report: what to show.
        pictures: for the gallery.
    """
    template = _environment(autoescape=True).get_template("report.html.j2")
    style = "\n".join(_asset(f"style/{name}.css") for name in STYLES)
    script = _asset("report.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    values = {"style": Markup(style), "script": Markup(script), "script_hash": digest}
    bare = template.render(report=report, **values)
    left = SIZE_LIMIT - CAPTIONS - len(bare.encode())
    return template.render(report=replace(report, galleries=galleries(pictures, left)), **values)


def _asset(name: str) -> str:
    templates = files("stpm.benchmarks.report").joinpath("templates")
    return templates.joinpath(name).read_text(encoding="utf-8")


def _environment(**options: Any) -> Environment:
    environment = Environment(
        loader=PackageLoader("stpm.benchmarks.report", "templates"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        **options,
    )
    environment.filters["is_number"] = _is_number
    environment.filters["heading"] = heading
    return environment


def _is_number(table: Table, column: int) -> bool:
    """Tell whether every cell of a column is a number or empty; the first one holds names."""
    if column == 0:
        return False
    firsts = [row.cells[column].split("\n")[0] for row in table.rows]
    return any(firsts) and all(_NUMBER.fullmatch(first) or not first for first in firsts)


def _markdown_text(value: object) -> object:
    """Write a value as text that Markdown does not interpret; a line break becomes `<br>`."""
    if isinstance(value, Markup) or not isinstance(value, str):
        return value
    escaped = re.sub(r"([\\`*\[\]<>|&#~$])", r"\\\1", value)
    return escaped.replace("\n", "<br>")
