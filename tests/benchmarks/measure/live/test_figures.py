"""What became of frames, told from what was sent, recorded and heard."""

from __future__ import annotations

import pytest

from stpm.benchmarks.measure.live.figures import (
    HELD_UP,
    Frames,
    count_messages,
    followed,
    memory_growth,
    stages_ms,
    told_ms,
)
from stpm.benchmarks.records.live import Sample

HASHES = {"zero": 0, "one": 1, "two": 2}
SECOND = 10**9


def entry(number: int, sha256: str, verdict: str = "ok", score: float = 10.0) -> dict[str, object]:
    found = {"image": f"camera#{number}", "verdict": verdict, "latency_ms": {"score": score}}
    return found | ({"sha256": sha256} if sha256 else {})


def frames(*entries: dict[str, object], unplugged_ns: int | None = None) -> Frames:
    """Five frames, of which one is due a second."""
    due = [number * SECOND for number in range(5)]
    return Frames("top", due, [0, 1, 2, 0, 1], entries, unplugged_ns)


def test_frames_are_followed_in_their_order() -> None:
    sent = [0, 1, 2, 0, 1, 2, 0]
    assert followed(sent, [0, 1, 2, 0, 1, 2, 0]) == list(range(7))
    assert followed(sent, [0, 2, 0, 0]) == [0, 2, 3, 6]
    assert followed(sent, [0, None, 1, 5]) == [0, None, 1, None]
    assert followed(sent, [2, 2, 2]) == [2, 5, None]


def test_a_frame_without_a_line_is_lost() -> None:
    whole = frames(
        *(entry(i, name) for i, name in enumerate(["zero", "one", "two", "zero", "one"]))
    )
    assert whole.count(HASHES) == {
        "name": "top",
        "sent": 5,
        "verdicts": {"ok": 5},
        "lost": 0,
        "away_s": None,
    }
    torn = frames(entry(1, "zero"), entry(2, "two", "anomalous"), entry(3, "", "dropped"))
    counts = torn.count(HASHES)
    assert counts["verdicts"] == {"anomalous": 1, "dropped": 1, "ok": 1}
    assert counts["lost"] == 2
    foreign = frames(entry(1, "zero"), entry(2, "half an image"), entry(3, "one"))
    assert foreign.count(HASHES)["lost"] == 3


def test_a_camera_is_away_until_its_next_recorded_frame() -> None:
    entries = [entry(1, "zero"), entry(2, "zero"), entry(3, "one")]
    assert frames(*entries, unplugged_ns=SECOND // 2).count(HASHES)["away_s"] == 2.5
    assert frames(*entries[:1], unplugged_ns=SECOND // 2).count(HASHES)["away_s"] is None


def test_messages_are_held_against_the_record() -> None:
    camera = frames(entry(1, "zero"), entry(2, "one"), entry(3, "two"))
    heard = [(5, "top", "camera#1"), (6, "top", "camera#3"), (7, "top", "camera#1")]
    counts, first = count_messages([camera], heard)
    assert counts == {"lines": 3, "heard": 2, "twice": 1}
    assert first == {("top", "camera#1"): 5, ("top", "camera#3"): 6}


def test_frames_that_the_broker_held_up_are_left_out_of_the_latency() -> None:
    camera = frames(*(entry(i, name) for i, name in enumerate(["zero", "one", "two"])))
    first = {("top", f"camera#{i}"): i * SECOND + (i + 1) * 10**7 for i in range(3)}
    assert told_ms([camera], HASHES, first, None) == {"p50": 20, "p90": 28, "p99": 29.8, "max": 30}
    for stopped in (SECOND, SECOND + 10**7):  # the second one was under way
        found = told_ms([camera], HASHES, first, (stopped, stopped + 1))
        assert found is not None
        assert found["max"] == 10
    held_up = (-1, 2 * SECOND - round(HELD_UP) - 1)
    later = told_ms([camera], HASHES, first, held_up)
    assert later is not None
    assert later["p50"] == 30
    assert told_ms([camera], HASHES, {}, None) is None


def test_stages_are_of_all_verdicts_that_have_them() -> None:
    entries = [entry(1, "zero", score=score) for score in (1.0, 2.0, 9.0)]
    entries.append({"verdict": "error", "latency_ms": {}})
    assert stages_ms(entries) == {"score": {"p50": 2, "p90": 7.6, "p99": 8.86, "max": 9}}


def test_memory_grows_from_the_first_to_the_last_fifth() -> None:
    megabytes = [10, 50, 100, 100, 101, 150, 102, 102, 300, 110, 110, 103]
    samples: list[Sample] = [
        {"at_s": number, "memory_mib": memory, "processor_s": 0}
        for number, memory in enumerate(megabytes)
    ]
    assert memory_growth(samples, warm_up_s=2) == pytest.approx(106.5 / 100 - 1)
    assert memory_growth(samples[:3], warm_up_s=2) == 0
