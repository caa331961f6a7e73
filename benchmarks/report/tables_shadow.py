"""Two bundles on one archive as tables."""

from __future__ import annotations

from stpm.benchmarks.records.accuracy import Interval
from stpm.benchmarks.records.shadow import Contest, Judge, Opinion, ShadowRecord
from stpm.benchmarks.report.tables import Table

MOST_ROWS = 50
"""Images that a table names."""
GROUPS = {"all": "all images", "good": "good parts", "defective": "defective parts"}


def shadow_tables(content: ShadowRecord) -> list[Table]:
    """Tabulate a result of kind "shadow": what changes, who is right, and which images."""
    tables = [_changes(content), _contests(content), _changed(content), _unscored(content)]
    return [table for table in tables if table.rows]


def _changes(content: ShadowRecord) -> Table:
    count = len(content["images"])
    old, new = content["old"], content["new"]
    table = Table(
        f"{new['name']} in place of {old['name']}: {content['archive']}",
        ("", "images", "share of all"),
    )
    same = count - sum(change["count"] for change in content["changes"])
    table.add("decided the same", str(same), _share(same, count))
    for change in content["changes"]:
        share = f"{_share(change['count'], count)}\n{_interval(change['interval'])}"
        table.add(f"{change['old']} \u2192 {change['new']}", str(change["count"]), share)
    table.add("could not be scored", str(len(content["unscored"])))
    if content["not_kept"]:
        table.add("recorded, but not there any more", str(content["not_kept"]))
    for what, left_out in content["left_out"].items():
        table.add(f"left out: {what}", str(left_out))
    return table


def _contests(content: ShadowRecord) -> Table:
    """Tabulate rejections; of labelled images it says which of the changes are right."""
    table = Table(
        "what only one of the two rejects, by McNemar's exact test",
        ("", "images", "newly rejected", "newly passed", "share rejected", "p", "new is right"),
    )
    for contest in content["contests"]:
        rejected, passed = contest["newly_rejected"], contest["newly_passed"]
        share = f"{_share(rejected, rejected + passed)}\n{_interval(contest['interval'])}"
        table.add(
            GROUPS[contest["group"]],
            str(contest["images"]),
            str(rejected),
            str(passed),
            share if rejected + passed else "",
            f"{contest['p_value']:.3g}",
            _right(contest),
        )
    return table


def _right(contest: Contest) -> str:
    rejected, passed = contest["newly_rejected"], contest["newly_passed"]
    right = {"good": passed, "defective": rejected}.get(contest["group"])
    differing = rejected + passed
    return "" if right is None or not differing else f"{right} of {differing}"


def _changed(content: ShadowRecord) -> Table:
    old, new = content["old"], content["new"]
    count = sum(change["count"] for change in content["changes"])
    shown = content["images"][: min(count, MOST_ROWS)]
    of = f", the worst {len(shown)} of {count}" if len(shown) < count else ""
    table = Table(
        f"decided otherwise, scores and how many times the threshold they are{of}",
        ("", "kind", "old", "new", "old score", "new score"),
    )
    for image in shown:
        before, after = image["old"], image["new"]
        scores = _score(before, old), _score(after, new)
        kind = image.get("kind", "")
        table.add(image["name"], kind, before["verdict"], after["verdict"], *scores)
    return table


def _unscored(content: ShadowRecord) -> Table:
    table = Table("could not be scored", ("", "reason"))
    for image in content["unscored"]:
        table.add(image["name"], image["reason"])
    return table


def _score(opinion: Opinion, judge: Judge) -> str:
    if opinion["verdict"] == "unaligned":
        return "-"
    times = f"\n{opinion['score'] / judge['threshold']:.3g}" if judge["threshold"] > 0 else ""
    return f"{opinion['score']:.4g}{times}"


def _share(count: int, of: int) -> str:
    return f"{count / of:.1%}" if of else ""


def _interval(interval: Interval) -> str:
    low, high = interval
    return f"{low:.1%}\u2013{high:.1%}"
