"""The demo data of the novel: two files, the same hundred pairs, written as pandas on Windows writes them."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "examples" / "pride"
FILES = {"pride_qa_zh.csv": ("gbk", ["问题", "答案"]), "pride_qa_en.csv": ("utf-8", ["question", "answer"])}


def rows(name: str) -> list[list[str]]:
    """The file's rows with its header; raises UnicodeDecodeError or csv.Error where the file is not what it says."""
    text = (FOLDER / name).read_bytes().decode(FILES[name][0], errors="strict")
    return list(csv.reader(io.StringIO(text, newline=""), strict=True))


@pytest.mark.parametrize("name", FILES)
def test_a_hundred_whole_pairs_behind_an_unnamed_index(name: str) -> None:
    header, *pairs = rows(name)
    assert header == ["", *FILES[name][1]]
    assert [row[0] for row in pairs] == [str(number) for number in range(100)]
    assert all(len(row) == 3 and cell.strip() == cell != "" for row in pairs for cell in row)
    for column in (1, 2):
        assert len({row[column] for row in pairs}) == 100


@pytest.mark.parametrize("name", FILES)
def test_answers_have_the_length_of_an_answer(name: str) -> None:
    for _, question, answer in rows(name)[1:]:
        size, low, high = (len(answer), 30, 110) if name.endswith("zh.csv") else (len(answer.split()), 15, 60)
        assert low <= size <= high, question


@pytest.mark.parametrize("name", FILES)
def test_the_file_is_what_pandas_on_windows_writes(name: str) -> None:
    raw = (FOLDER / name).read_bytes()
    table = io.StringIO(newline="")
    csv.writer(table, lineterminator="\r\n").writerows(rows(name))
    assert table.getvalue().encode(FILES[name][0]) == raw
    answers = [row[2] for row in rows(name)[1:]]
    for mark in (",", '"', "\n"):
        assert any(mark in answer for answer in answers), f"no answer makes CSV quote for {mark!r}"


def test_the_languages_are_told_apart_only_by_decoding() -> None:
    """The Chinese file must be no UTF-8 and the English one plain ASCII, or reading them would prove nothing."""
    with pytest.raises(UnicodeDecodeError):
        (FOLDER / "pride_qa_zh.csv").read_bytes().decode("utf-8")
    assert (FOLDER / "pride_qa_en.csv").read_bytes().isascii()


def test_both_files_tell_the_same_pairs_in_the_same_order() -> None:
    names = {"达西": "Darcy", "彭伯利": "Pemberley", "格雷特纳格林": "Gretna", "福代斯": "Fordyce", "埃杰顿": "Egerton"}
    chinese, english = rows("pride_qa_zh.csv")[1:], rows("pride_qa_en.csv")[1:]
    assert len(chinese) == len(english)
    for theirs, ours in names.items():
        asked = [row[0] for row in chinese if theirs in row[1]] or [row[0] for row in chinese if theirs in row[2]]
        assert asked
        assert all(ours in english[int(number)][1] + english[int(number)][2] for number in asked), theirs
