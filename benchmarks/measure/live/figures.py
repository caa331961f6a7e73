"""From what was sent, recorded and heard to the figures of a run; nothing here runs anything."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from stpm.benchmarks.measure.latency import percentiles
from stpm.benchmarks.records.live import LiveCamera, Messages, Sample
from stpm.benchmarks.records.speed import Percentiles
from stpm.runtime.live.verdict import Entry

STAGES = ("wait", "decode", "score")
FIFTH = 5
HELD_UP = 25e9
"""Nanoseconds after a broker is back in which the station may still bring it what waited: its next
try is at most 10 s away, the client's another 10 s."""


def followed(sent: Sequence[int], recorded: Sequence[int | None]) -> list[int | None]:
    """Tell for each recorded frame which one of those sent it is.

    Args:
        sent: numbers of the images that a camera sent, in order.
        recorded: numbers of the images in the record, in order; None for one that is none of them.

    Returns:
        Indices into `sent`, ever higher; None for a frame that was not sent after the last.
    """
    found: list[int | None] = []
    place = 0
    for image in recorded:
        try:
            at = sent.index(image, place) if image is not None else None
        except ValueError:
            at = None
        found.append(at)
        place = place if at is None else at + 1
    return found


@dataclass(frozen=True)
class Frames:
    """A camera's frames, and what became of them.

    Attributes:
        name: of the camera.
        due_ns: when each was due.
        images: which image each was.
        entries: of the record, in order.
        unplugged_ns: when the camera was unplugged, if it was.
    """

    name: str
    due_ns: Sequence[int]
    images: Sequence[int]
    entries: Sequence[Entry]
    unplugged_ns: int | None = None

    def places(self, by_hash: Mapping[str, int]) -> list[int | None]:
        """Tell for each entry which frame it is; see `followed`."""
        images = [by_hash.get(entry.get("sha256", "")) for entry in self.entries]
        return followed(self.images, images)

    def count(self, by_hash: Mapping[str, int]) -> LiveCamera:
        """Count what became of the frames."""
        places = [place for place in self.places(by_hash) if place is not None]
        verdicts = Counter(entry["verdict"] for entry in self.entries)
        unscored = verdicts["dropped"] + verdicts["error"]
        away = None
        if self.unplugged_ns is not None:
            later = [self.due_ns[i] for i in places if self.due_ns[i] > self.unplugged_ns]
            away = (min(later) - self.unplugged_ns) / 1e9 if later else None
        return {
            "name": self.name,
            "sent": len(self.due_ns),
            "verdicts": dict(sorted(verdicts.items())),
            "lost": len(self.due_ns) - len(places) - unscored,
            "away_s": away,
        }


def count_messages(
    cameras: Sequence[Frames], heard: Sequence[tuple[int, str, str]]
) -> tuple[Messages, dict[tuple[str, str], int]]:
    """Hold what a subscriber heard against the record.

    Args:
        cameras: with all entries of the record.
        heard: (time in ns, camera, image's name) of each message.

    Returns:
        The counts, and when each (camera, name) was heard first.
    """
    names = [(camera.name, entry["image"]) for camera in cameras for entry in camera.entries]
    first: dict[tuple[str, str], int] = {}
    for at, camera_name, name in heard:
        first.setdefault((camera_name, name), at)
    found = sum(name in first for name in names)
    counts: Messages = {"lines": len(names), "heard": found, "twice": len(heard) - len(first)}
    return counts, first


def told_ms(
    cameras: Sequence[Frames],
    by_hash: Mapping[str, int],
    first: Mapping[tuple[str, str], int],
    held_up: tuple[int, int] | None,
) -> Percentiles | None:
    """Tell how long after it was due a frame's verdict was heard.

    Args:
        cameras, by_hash: see `Frames`.
        first: see `count_messages`.
        held_up: the broker stopped and came back, in ns; frames that were not heard before it
            stopped, and due until `HELD_UP` after it was back, are left out.
    """
    times = []
    for camera in cameras:
        for entry, place in zip(camera.entries, camera.places(by_hash), strict=True):
            at = first.get((camera.name, entry["image"]))
            if place is None or at is None:
                continue
            due = camera.due_ns[place]
            if held_up is None or at < held_up[0] or due > held_up[1] + HELD_UP:
                times.append((at - due) / 1e6)
    return shown_percentiles(times)


def stages_ms(entries: Sequence[Entry]) -> dict[str, Percentiles]:
    """Return the percentiles of each stage over verdicts of a record."""
    found = {}
    for stage in STAGES:
        times = [e["latency_ms"][stage] for e in entries if stage in e["latency_ms"]]
        if (shown := shown_percentiles(times)) is not None:
            found[stage] = shown
    return found


def shown_percentiles(times: Sequence[float]) -> Percentiles | None:
    """Return what times in ms are judged by, rounded; None without any."""
    if not times:
        return None
    found = percentiles(np.array(times))
    p50, p90, p99, most = (round(found[name], 3) for name in ("p50", "p90", "p99", "max"))
    return {"p50": p50, "p90": p90, "p99": p99, "max": most}


def memory_growth(samples: Sequence[Sample], warm_up_s: float) -> float:
    """Return by how much the median memory of the last fifth is above that of the first, relative.

    Args:
        samples: in order, at least one after `warm_up_s`.
        warm_up_s: seconds at the beginning that do not count.
    """
    memory = [sample["memory_mib"] for sample in samples if sample["at_s"] >= warm_up_s]
    fifth = max(len(memory) // FIFTH, 1)
    return float(np.median(memory[-fifth:]) / np.median(memory[:fifth]) - 1)
