"""Importing in a browser: a taken name is a choice, and every refused row stays within reach and can be repaired."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sartor import api
from sartor.web.i18n import Translator
from support.browsing import CHROMIUM, Server, window

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not CHROMIUM, reason="no chromium (apt-get install chromium, or CHROMIUM=path)"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_a_taken_name_is_a_choice_and_refused_rows_stay(
    server: Server, browser: Any, lang: str, tmp_path: Path
) -> None:
    t, complaints = Translator(lang), list[str]()
    data = server.folder / "data"
    name = f"taken_{lang}"
    first, second = tmp_path / f"{name}.csv", tmp_path / "again" / f"{name}.csv"
    first.write_text("question,answer\nold,rows\n", encoding="utf-8")
    second.parent.mkdir()
    second.write_text("question,answer\nQ1,A1\nQ2,\nQ3,A3,x\n", encoding="utf-8")
    api.import_file(first, name, dataset_dir=data)
    page = window(browser, lang, complaints)
    page.goto(f"{server.address}/data")
    page.locator("input[data-upload]").set_input_files(second)
    page.get_by_role("button", name=t("Import"), exact=True).first.click()
    page.get_by_text(t("The dataset {name!r} exists already.", name=name)).first.wait_for()
    page.get_by_role("button", name=t("Import as a new version"), exact=True).click()
    page.get_by_text(
        t("{name} is ready: {usable} of {read} rows are usable.", name=f"{name}-v2", usable=1, read=3)
    ).wait_for()
    assert json.loads((data / f"{name}.json").read_text("utf-8"))[0]["conversations"][0]["value"] == "old"
    page.goto(f"{server.address}/dataset/{name}-v2")
    page.get_by_text(t("rows read at import")).first.wait_for()
    edits = page.get_by_role("button", name=t("Edit"), exact=True)
    edits.first.wait_for()
    assert edits.count() == 2
    edits.first.click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label(t("Answer"), exact=True).fill("A2")
    dialog.get_by_role("button", name=t("Save as new version"), exact=True).click()
    page.wait_for_url(f"**/dataset/{name}-v3")
    page.get_by_text(t("{found} of {all} rows", found=2, all=2)).first.wait_for()
    edits.first.wait_for()
    assert edits.count() == 1, "the other refused row is still there"
    assert [row.repaired for row in api.read_refused(f"{name}-v3", data)] == [True, False]
    assert complaints == []
