"""Files that are read once, until they change."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from stpm.runtime import DataError
from stpm.train.datasets.file_cache import cached_by_file


def test_a_file_is_read_again_when_it_changed_or_others_came(tmp_path: Path) -> None:
    seen: list[str] = []

    @cached_by_file(2)
    def read(path: Path) -> str:
        seen.append(path.name)
        return path.read_text()

    files = [tmp_path / name for name in "abc"]
    for file in files:
        file.write_text(file.name)
    assert [read(files[i]) for i in (0, 1, 0, 1)] == ["a", "b", "a", "b"]
    assert seen == ["a", "b"]
    files[0].write_text("longer")
    assert read(files[0]) == "longer"
    assert read(files[2]) == "c"
    assert read(files[1]) == "b"
    assert seen == ["a", "b", "a", "c", "b"]


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no such file"):
        cached_by_file(1)(Path.read_bytes)(tmp_path / "none")


def test_threads_that_want_one_file_read_it_once() -> None:
    seen: list[Path] = []

    @cached_by_file(1)
    def read(path: Path) -> int:
        seen.append(path)
        time.sleep(0.05)  # the others ask meanwhile
        return len(seen)

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(read, [Path(__file__)] * 8)) == [1] * 8
    assert seen == [Path(__file__)]
