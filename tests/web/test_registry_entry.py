"""The form of a dataset's entry and its JSON say the same; what is no entry, or points outside, is not saved."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sartor.base.errors import DataError, SartorError
from sartor.data.dataset_info import KEYS, parse_entry, write_entry
from sartor.data.dataset_spec import COLUMNS, TAGS
from sartor.web.cache import Cache
from sartor.web.pages.registry_entry import MEDIA, PLACES, parsed, value_at, with_value
from sartor.web.workspace import Workspace


def test_every_key_of_an_entry_has_a_field() -> None:
    assert {place[0] for place in PLACES} <= set(KEYS)
    assert {place[1] for place in PLACES if place[0] == "columns"} == set(COLUMNS) - set(MEDIA)
    assert {place[1] for place in PLACES if place[0] == "tags"} == set(TAGS)


def test_what_is_typed_in_a_box_stands_in_the_entry_and_goes_out_again() -> None:
    entry = {"file_name": "a.json", "columns": {"prompt": "q"}, "kept": 1}
    for place in PLACES:
        made = with_value(entry, place, "x")
        assert value_at(made, place) == "x"
        assert value_at(with_value(made, place, ""), place) is None
        assert made["kept"] == 1
    assert with_value(entry, ("columns", "prompt"), None) == {"file_name": "a.json", "kept": 1}, "no empty columns"
    assert value_at({"columns": "broken"}, ("columns", "prompt")) is None
    assert with_value({"columns": "broken"}, ("columns", "prompt"), "q") == {"columns": {"prompt": "q"}}


def test_entries_made_in_the_form_are_read_as_any_other(tmp_path: Path) -> None:
    entry: dict[str, object] = {}
    for place, value in (
        (("file_name",), "a.json"),
        (("formatting",), "sharegpt"),
        (("num_samples",), 3),
        (("columns", "messages"), "talk"),
        (("tags", "role_tag"), "who"),
    ):
        entry = with_value(entry, place, value)
    spec = parse_entry("a", entry, tmp_path / "dataset_info.json")
    assert (spec.formatting, spec.num_samples, spec.columns["messages"], spec.tags["role_tag"]) == (
        "sharegpt",
        3,
        "talk",
        "who",
    )


@pytest.mark.parametrize(
    "shown",
    [
        "",
        "[1",
        "[]",
        "{}",
        '{"file_name": "../x.json"}',
        '{"file_name": "/etc/passwd"}',
        '{"file_nam": "a.json"}',
        '{"file_name": "a.json", "ranking": 1}',
        '{"file_name": "a.json", "columns": {"q": "a"}}',
    ],
    ids=str,
)
def test_what_is_no_entry_is_named_as_one_types(tmp_path: Path, shown: str) -> None:
    with pytest.raises(DataError):
        parsed(Workspace(tmp_path), "a", shown)


def test_a_script_in_an_entry_is_never_run_by_the_page(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    (workspace.data / "loader").mkdir(parents=True)
    script = f"open({str(tmp_path / 'ran')!r}, 'w')\n"
    (workspace.data / "loader" / "loader.py").write_text(script, encoding="utf-8")
    write_entry(workspace.data, "bad", parsed(workspace, "bad", json.dumps({"script_url": "loader"})))
    with pytest.raises(SartorError):
        Cache(workspace).dataset("bad")
    assert not (tmp_path / "ran").exists()
