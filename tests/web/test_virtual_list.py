"""Rows in sight by scroll position; mending a dataset; hostile rows are drawn as text."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sartor import api
from sartor.base.errors import DataError
from sartor.base.types import Demonstration, Message
from sartor.prompt.label_view import Piece, RenderedText
from sartor.web.cache import Cache, find, turns
from sartor.web.pages.chat import as_row
from sartor.web.pages.dataset import changed, leaves
from sartor.web.pages.labels import colored
from sartor.web.pages.verdict import marked, ordered
from sartor.web.virtual_list import HEIGHT_PX, MAX_HEIGHT_PX, VIEWPORT_PX, first_row
from sartor.web.workspace import Workspace

HOSTILE = "<script>alert(1)</script>\x1b[31m\u202e"


def test_a_million_rows_are_reached_by_scrolling() -> None:
    assert first_row(0, 1_000_000) == 0
    end = first_row(MAX_HEIGHT_PX - VIEWPORT_PX, 1_000_000)
    assert end == 1_000_000 - VIEWPORT_PX // HEIGHT_PX
    assert first_row(10 * HEIGHT_PX, 100) == 10
    places = [first_row(top, 1_000_000) for top in range(0, MAX_HEIGHT_PX, 100_000)]
    assert places == sorted(places)


def test_texts_of_a_row_are_changed_in_their_places() -> None:
    row = {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": None}], "n": 3}
    places = dict(leaves(row))
    assert places[("conversations", 1, "value")] == ""
    assert changed(row, places) == row, "nothing typed, nothing changed"
    places[("conversations", 1, "value")] = "b"
    assert changed(row, places)["conversations"][1]["value"] == "b"


@pytest.fixture
def desk(tmp_path: Path) -> Workspace:
    data = tmp_path / "data"
    data.mkdir()
    rows = [
        {"instruction": "q1", "output": "a1"},
        {"instruction": "q2", "output": ""},
        {"instruction": HOSTILE, "output": "x"},
    ]
    (data / "d.json").write_text(json.dumps(rows), encoding="utf-8")
    (data / "dataset_info.json").write_text('{"d": {"file_name": "d.json", "file_sha1": null}}', encoding="utf-8")
    return Workspace(tmp_path)


def test_a_new_version_leaves_the_old_one(desk: Workspace) -> None:
    stand = {origin.id: row for origin, row in api.read_rows("d", desk.data)}
    _, second, third = stand
    new = api.save_version("d", desk.data, changes={second: {**stand[second], "output": "a2"}, third: None})
    assert new == "d-v2"
    assert [turns(e)[-1][1] for e in api.load("d-v2", desk.data).examples] == ["a1", "a2"]
    assert len(api.load("d", desk.data).ledger.skipped) == 1
    assert api.save_version("d-v2", desk.data, changes={}) == "d-v3"
    with pytest.raises(DataError, match="Unknown row"):
        api.save_version("d", desk.data, changes={"d:99": None})


def test_saved_turns_become_a_dataset(desk: Workspace) -> None:
    turn = {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]}
    api.add_row("chat", desk.data, turn)
    api.add_row("chat", desk.data, turn)
    assert len(api.load("chat", desk.data).examples) == 2
    with pytest.raises(DataError, match="not in sharegpt format"):
        api.add_row("d", desk.data, turn)


def test_a_saved_turn_is_read_back_as_it_was_said(desk: Workspace) -> None:
    turns_ = [Message("user", "q"), Message("assistant", "a", reasoning="because")]
    api.add_row("chat", desk.data, {"conversations": as_row(turns_, "S")})
    (row,) = api.load("chat", desk.data).examples
    assert isinstance(row, Demonstration)
    said = [(m.role, m.text) for m in row.messages]
    assert said == [("system", "S"), ("user", "q"), ("assistant", "<think>\nbecause\n</think>\n\na")]


def test_a_dataset_is_loaded_again_only_when_it_changed(desk: Workspace) -> None:
    shelf = Cache(desk)
    before = shelf.dataset("d")
    assert shelf.dataset("d") is before
    assert find(before, "Q1") == [0]
    (desk.data / "d.json").write_text('[{"instruction": "n", "output": "m"}]', encoding="utf-8")
    assert len(shelf.dataset("d").examples) == 1


def test_hostile_text_stays_text() -> None:
    drawing = RenderedText("", (Piece(HOSTILE, True, False, 1), Piece("<b>", False, True, 1, used=False)), 2, 1)
    for made in (colored(drawing), marked(HOSTILE, "alert"), marked("<img onerror=x>", "")):
        assert "<script" not in made
        assert "<img" not in made
        assert "<b>" not in made
        assert "\x1b" not in made
    assert "&lt;script&gt;" in colored(drawing)


def test_answers_are_ordered_by_score_and_those_without_come_last() -> None:
    def pair(number: int, loss: float | None) -> tuple[dict[str, object], dict[str, object]]:
        return {"id": number}, {"id": number, "loss": loss, "scores": {"chrf": number}}

    pairs = [pair(1, 2.0), pair(2, None), pair(3, 0.5)]
    assert [p[0]["id"] for p in ordered(pairs, "row")] == [1, 2, 3]
    assert [p[0]["id"] for p in ordered(pairs, "loss up")] == [3, 1, 2]
    assert [p[0]["id"] for p in ordered(pairs, "chrf down")] == [3, 2, 1]
