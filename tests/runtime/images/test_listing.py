"""Which files are images to score or to train on, and which are left out."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from stpm.runtime.errors import DataError
from stpm.runtime.images.listing import (
    expand_glob,
    folders_in,
    images_below,
    list_images,
    read_list,
)

IGNORED = [".DS_Store", "._a.png", ".ipynb_checkpoints/a-checkpoint.png", "__MACOSX/a.png"]
IGNORED += ["@eaDir/a.png/SYNO.png", "Thumbs.db", "THUMBS.DB", "desktop.ini", "$RECYCLE.BIN/b.png"]


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def below(root: Path, **options: Path) -> list[str]:
    return [str(path.relative_to(root)) for path in images_below(root, **options).images]


def test_names_of_systems_are_ignored_everywhere(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "b/c.jpg", *IGNORED)
    assert below(tmp_path) == ["a.png", "b/c.jpg"]
    assert not images_below(tmp_path).left_out
    assert list_images(tmp_path) == [tmp_path / "a.png"]
    assert folders_in(tmp_path) == [tmp_path / "b"]
    assert expand_glob(f"{tmp_path}/**/*.png") == [tmp_path / "a.png"]
    assert expand_glob(f"{tmp_path}/*/*.png") == []


def test_a_named_hidden_folder_is_searched(tmp_path: Path) -> None:
    touch(tmp_path, ".cache/a.png", ".cache/.b.png")
    assert below(tmp_path / ".cache") == ["a.png"]
    assert expand_glob(f"{tmp_path}/.cache/*.png") == [tmp_path / ".cache/a.png"]
    assert expand_glob(f"{tmp_path}/.cache/.*") == [tmp_path / ".cache/.b.png"]


def test_other_files_are_counted(tmp_path: Path) -> None:
    touch(tmp_path, "a.webp", "b.JFIF", "c.gif", "d.GIF", "below/e.txt", "README")
    found = images_below(tmp_path)
    assert [path.name for path in found.images] == ["a.webp", "b.JFIF"]
    assert found.left_out == {".gif": 2, ".txt": 1, "without suffix": 1}


def test_what_a_folder_of_images_leaves_out_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    touch(tmp_path, "a.png", "b.gif", "monday/c.png", "tuesday/d.png")
    assert list_images(tmp_path) == [tmp_path / "a.png"]
    assert capsys.readouterr().err == (
        f"{tmp_path}: left out: 1 .gif and the contents of its folders (monday, tuesday)\n"
    )
    (tmp_path / "a.png").unlink()
    with pytest.raises(
        DataError, match=r"contains no images; .*the contents of its folders \(monday, "
    ):
        list_images(tmp_path)


def test_linked_folders_are_followed_once(tmp_path: Path) -> None:
    touch(tmp_path, "far/1.png", "far/deep/2.png", "line/0.png", "line/z/3.png")
    line = tmp_path / "line"
    (line / "camera2").symlink_to("../far")
    (line / "camera3").symlink_to("../far", target_is_directory=True)
    (line / "a").symlink_to("z")
    (line / "loop").symlink_to(".")
    (line / "z/up").symlink_to("../..")
    assert below(line) == ["0.png", "camera2/1.png", "camera2/deep/2.png", "z/3.png"]
    assert [p.relative_to(line) for p in expand_glob(f"{line}/**/[0-9].png")] == [
        Path(name) for name in below(line)
    ]
    assert expand_glob(f"{line}/loop/0.png") == [line / "loop/0.png"]


def test_a_broken_link_is_an_image_that_is_refused_later(tmp_path: Path) -> None:
    (tmp_path / "a.png").symlink_to("absent")
    assert below(tmp_path) == ["a.png"]
    assert list_images(tmp_path) == [tmp_path / "a.png"]


def test_the_folder_of_the_pictures_is_not_searched(tmp_path: Path) -> None:
    touch(tmp_path, "line/a.png", "line/out/a_mask.png", "line/out/b/c_mask.png")
    (tmp_path / "link").symlink_to("line/out")
    for out in (tmp_path / "line/out", tmp_path / "link", tmp_path / "line/../line/out"):
        assert below(tmp_path / "line", without=out) == ["a.png"]
        assert expand_glob(f"{tmp_path}/line/**", without=out) == [tmp_path / "line/a.png"]
        assert expand_glob(f"{tmp_path}/line/*/*.png", without=out) == []
    assert below(tmp_path / "line", without=tmp_path / "line") == []


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("*.png", ["a.png", "b.png"]),
        ("[ab].*", ["a.png", "b.png", "b.txt"]),
        ("**/*.png", ["a.png", "b.png", "x/c.png", "x/y/d.png"]),
        ("**/x/**/*.png", ["x/c.png", "x/y/d.png"]),
        ("x/**", ["x/c.png", "x/y/d.png"]),
        ("?/./y/../*.png", ["x/c.png"]),
        ("*", ["a.png", "b.png", "b.txt"]),
        ("absent/*", []),
        ("a.png/*", []),
    ],
)
def test_patterns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pattern: str, names: list[str]
) -> None:
    touch(tmp_path, "a.png", "b.png", "b.txt", "x/c.png", "x/y/d.png")
    monkeypatch.chdir(tmp_path)
    assert [os.path.normpath(path) for path in expand_glob(pattern)] == names
    assert [os.path.normpath(p) for p in expand_glob(f"{tmp_path}/{pattern}")] == [
        str(tmp_path / name) for name in names
    ]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_lists_in_the_encodings_that_editors_write(encoding: str) -> None:
    content = "部品/a b.png\r\n\r\n  ä.png\n".encode(encoding)
    assert read_list(content) == [Path("部品/a b.png"), Path("ä.png")]
    assert read_list(b"\xfe\xff" + "ä.png".encode("utf-16-be")) == [Path("ä.png")]


def test_names_that_are_no_text_stay_as_they_are(tmp_path: Path) -> None:
    assert os.fsencode(read_list(b"\xe4.png\n")[0]) == b"\xe4.png"


@pytest.mark.parametrize("content", ["a.png".encode("utf-16-le"), b"\xff\xfea"])
def test_lists_in_other_encodings_are_refused(content: bytes) -> None:
    with pytest.raises(DataError, match=r"the list of paths .*; save it as UTF-8\."):
        read_list(content)
