"""Names of saved pictures: below one folder, no two equal, none too long."""

from __future__ import annotations

import os
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from stpm.runtime.output.picture_names import picture_stems

FOLDERS = st.just([]) | st.lists(st.sampled_from(["a", "b", "a.b", ".."]), max_size=3)
NAMES = st.sampled_from(["a", "b", "a.a", "a.b", "b.a", "a.a.b", "a.b.a", "a_b.a", "a..b", ".a"])


@settings(deadline=None)
@given(st.lists(st.tuples(FOLDERS, NAMES), min_size=1, max_size=6))
def test_no_two_files_share_a_picture(parts: list[tuple[list[str], str]]) -> None:
    paths = [Path("/data/in", *folders, name) for folders, name in parts]
    stems = picture_stems(paths)
    assert stems.keys() == set(paths)
    assert not any(stem.is_absolute() or ".." in stem.parts for stem in stems.values())
    assert len(set(stems.values())) == len({os.path.normpath(path) for path in paths})


def test_no_files_have_no_pictures() -> None:
    assert picture_stems([]) == {}


def test_a_name_too_long_for_pictures_is_cut_and_stays_unique() -> None:
    names = ["部" * 83 + end for end in ("a.png", "b.png")] + ["short.png", "c" * 200 + ".png"]
    stems = picture_stems([Path("in", name) for name in names])
    first, second, short, kept = (stems[Path("in", name)].name for name in names)
    assert (short, kept) == ("short", "c" * 200)
    assert first != second
    for stem in (first, second):
        assert stem.startswith("部" * 60)
        assert len(os.fsencode(stem)) <= 200
