"""The cache: whole files, of the user alone, and no failure where it cannot be written."""

from __future__ import annotations

from pathlib import Path

import pytest

from stpm.runtime.backends.cache import cache_folder, cache_key, read_cache, write_cache


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "stpm"


def test_what_is_written_is_read(folder: Path) -> None:
    assert read_cache("plan") is None
    write_cache("plan", b"content")
    write_cache("plan", b"newer")
    assert read_cache("plan") == b"newer"
    assert [path.name for path in folder.iterdir()] == ["plan"]
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / "plan").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("change", [b"?", b"", b"x" * 32])
def test_damaged_content_is_not_read(folder: Path, change: bytes) -> None:
    write_cache("plan", b"content")
    (folder / "plan").write_bytes((folder / "plan").read_bytes()[:-1] + change)
    assert read_cache("plan") is None


def test_what_others_may_write_is_not_read(folder: Path) -> None:
    write_cache("plan", b"content")
    (folder / "plan").chmod(0o620)
    assert read_cache("plan") is None
    (folder / "plan").chmod(0o600)
    assert read_cache("plan") == b"content"
    folder.chmod(0o777)
    assert read_cache("plan") is None


def test_a_folder_that_cannot_be_made_is_no_failure(tmp_path: Path) -> None:
    (tmp_path / "stpm").write_text("a file")
    write_cache("plan", b"content")
    assert read_cache("plan") is None
    assert cache_folder() == tmp_path / "stpm"


def test_keys_differ_with_every_part() -> None:
    keys = {cache_key("a", 1), cache_key("a", "1"), cache_key("a1"), cache_key("a", (1, 2))}
    assert len(keys) == 4
    assert cache_key("a", 1) == cache_key("a", 1)
