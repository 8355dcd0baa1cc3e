"""Uploads are counted as they come, names are made harmless, nothing is written over, paths stay in the folder."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sartor.base.errors import DataError, SartorError
from sartor.web.pages.data import pasted_suffix
from sartor.web.uploads import keep
from sartor.web.workspace import Workspace, clean_name, dataset_name, visible


async def blocks(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


def test_bytes_are_counted_and_nothing_is_left_of_too_many(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="larger than"):
        asyncio.run(keep(blocks(b"x" * 60, b"y" * 60), "a.csv", tmp_path, 100))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(DataError, match="empty"):
        asyncio.run(keep(blocks(), "a.csv", tmp_path, 100))
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_never_written_over(tmp_path: Path) -> None:
    first = asyncio.run(keep(blocks(b"1"), "a.csv", tmp_path, 100))
    second = asyncio.run(keep(blocks(b"2", b"3"), "a.csv", tmp_path, 100))
    assert (first.name, first.read_bytes()) == ("a.csv", b"1")
    assert (second.name, second.read_bytes()) == ("a-2.csv", b"23")
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(
    ("reason", "remedy"),
    [(errno.ENOSPC, "Free some space"), (errno.EACCES, "permissions"), (errno.EROFS, "on another one")],
)
def test_a_file_that_cannot_be_kept_says_why_and_what_helps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: int, remedy: str
) -> None:
    def refused(*args: object, **options: object) -> None:
        raise OSError(reason, os.strerror(reason), "a.csv")

    monkeypatch.setattr(Path, "replace", refused)
    with pytest.raises(SartorError, match=os.strerror(reason)) as error:
        asyncio.run(keep(blocks(b"1"), "a.csv", tmp_path, 100))
    assert remedy in str(error.value.fix)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_without_hard_links_keeps_uploads_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*args: object, **options: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refused)
    names = [asyncio.run(keep(blocks(b"1"), "a.csv", tmp_path, 100)).name for _ in range(2)]
    assert names == ["a.csv", "a-2.csv"]


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\Users\\x\\a.csv", "a.csv"),
        (".bashrc", "bashrc"),
        ("a\x00b\n.csv", "ab.csv"),
        ("\u202egnp.csv", "gnp.csv"),
        ("问题.csv", "问题.csv"),
        ("con.csv", "con_.csv"),
        ("a" * 400 + ".csv", "a" * 180 + ".csv"),
        ("<b>.csv", "b.csv"),
    ],
)
def test_names_are_made_harmless(given: str, kept: str) -> None:
    assert clean_name(given) == kept


@pytest.mark.parametrize("name", ["", "..", "/", "\u202e", "..csv/"])
def test_names_of_nothing_are_refused(name: str) -> None:
    with pytest.raises(DataError):
        clean_name(name)


def test_paths_stay_in_the_folder(tmp_path: Path) -> None:
    (tmp_path / "workspace").mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "workspace" / "link").symlink_to(tmp_path / "outside")
    workspace = Workspace(tmp_path / "workspace")
    assert workspace.resolve_inside("a/b") == tmp_path / "workspace" / "a" / "b"
    for name in ("..", "../outside", "/etc", "link", "link/x", "a/../../outside"):
        with pytest.raises(DataError):
            workspace.resolve_inside(name)


def test_a_dataset_is_named_after_its_file() -> None:
    assert dataset_name("uploads/我的 data (1).csv") == "我的_data_1"
    assert dataset_name("!.csv") == "data"


def test_hostile_text_is_shown_as_text() -> None:
    assert visible("a\x1b[31mred\x00") == "a␛[31mred␀"
    assert visible("user\u202egnp.exe") == "user⟨U+202E⟩gnp.exe"
    assert visible("line\r\nnext\tcell") == "line\nnext\tcell"


def test_pasted_text_is_taken_for_what_it_is() -> None:
    assert [pasted_suffix(text) for text in ("a,b\n1,2", ' [{"a": 1}]', '{"a": 1}\n{"a": 2}', '{"a":\n 1}')] == [
        ".csv",
        ".json",
        ".jsonl",
        ".json",
    ]
