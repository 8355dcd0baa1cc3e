"""Messages are values: rendered where they are shown, in the language that is asked for there."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from babel.messages.catalog import Catalog
from babel.messages.mofile import write_mo

import sartor
from sartor.base.errors import ConfigError, SartorError
from sartor.base.i18n import LANGUAGES, Text, language, ntr, shown_in, tr
from sartor.base.reasons import all_reasons, reason_of


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"SARTOR_LANG": "zh"}, "zh"),
        ({"LANG": "zh_CN.UTF-8"}, "zh"),
        ({"LANG": "zh_CN.UTF-8", "SARTOR_LANG": "en"}, "en"),
        ({"LC_ALL": "C.UTF-8", "LANG": "zh_CN.UTF-8"}, "en"),
        ({"LANG": "xx_XX"}, "en"),
    ],
)
def test_the_language_comes_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], expected: str
) -> None:
    for name in ("SARTOR_LANG", "LC_ALL", "LC_MESSAGES", "LANG"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert language() == expected
    assert expected in LANGUAGES


def test_a_message_renders_its_params_in_the_same_language() -> None:
    inner = reason_of("answer-missing", {"field": "答案"})
    outer = tr("Row {row} is skipped: {reason}", row=3, reason=inner)
    assert str(outer) == "Row 3 is skipped: The row has no answer (答案 is empty or missing)."
    assert "该行没有答案（答案 为空或缺失）。" in outer.render("zh")
    with shown_in("zh"):
        assert str(inner) == "该行没有答案（答案 为空或缺失）。"


def test_text_that_is_no_format_string_is_shown_as_it_is() -> None:
    assert str(tr('Write {"a": 1}.')) == 'Write {"a": 1}.'
    assert str(ntr("{count} row", "{count} rows", count=1)) == "1 row"
    assert str(ntr("{count} row", "{count} rows", count=2)) == "2 rows"


def test_an_error_survives_a_file_and_keeps_its_code() -> None:
    error = ConfigError("Unknown setting {key!r}.", "run.yaml", tr("Did you mean {name}?", name="lora_rank"), key="r")
    read = SartorError.from_json(json.loads(json.dumps(error.to_json())))
    assert str(read) == str(error) == "Unknown setting 'r'.\nrun.yaml\nDid you mean lora_rank?"
    assert read.code == "config"
    assert str(SartorError.from_json({"what": "An old file {x}"}).what) == "An old file {x}"


def test_every_reason_is_translated() -> None:
    for reason in all_reasons().values():
        for message in filter(None, reason):
            assert Text(message).render("zh") != message


@pytest.mark.parametrize("template", ["{x.message}", "{x.__class__.__mro__}", "{x[0]}", "{x:>999999999}", "{}", "{0}"])
def test_a_template_from_a_file_reaches_nothing_but_its_params(template: str) -> None:
    hostile = Text.from_json({"message": template, "params": {"x": "value"}, "plural": ""})
    assert hostile.render("en") == template


def test_a_third_language_is_one_catalog(tmp_path: Path) -> None:
    package = shutil.copytree(Path(sartor.__file__).parent, tmp_path / "sartor", ignore=shutil.ignore_patterns("*.pyc"))
    catalog = Catalog("de", fuzzy=False)
    catalog.add("Unknown setting {setting!r}.", "Die Einstellung {setting!r} ist unbekannt.")
    folder = package / "locale" / "de" / "LC_MESSAGES"
    folder.mkdir(parents=True)
    with (folder / "sartor.mo").open("wb") as file:
        write_mo(file, catalog)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "LANG": "de_DE.UTF-8"}
    environment.pop("SARTOR_LANG", None)
    environment.pop("LC_ALL", None)
    command = [sys.executable, "-m", "sartor", "train", "lora_rnk=8"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, encoding="utf-8", check=False)
    assert "Die Einstellung 'lora_rnk' ist unbekannt." in done.stderr
    assert "Did you mean lora_rank" in done.stderr, "what is not translated stays English"
