"""The page's messages: which language is shown, and that values and settings have names in every language."""

from __future__ import annotations

from typing import get_args

import pytest

from sartor.base.i18n import LANGUAGES, Text, tr
from sartor.base.settings import SECTIONS
from sartor.web.components import OWN_NAME, quasar_language
from sartor.web.form import fields
from sartor.web.i18n import Translator, negotiate_language
from sartor.web.jobs import Kind
from sartor.web.pages.registry_entry import HINTS, PLACES
from sartor.web.pages.train import SECTION_NAMES
from sartor.web.queue_view import KINDS


def test_the_language_is_the_chosen_one_then_the_browsers_then_english() -> None:
    assert negotiate_language("zh", "en") == "zh"
    assert negotiate_language(None, "fr-FR,zh-CN;q=0.9") == "zh"
    assert negotiate_language("xx", "fr") == "en"
    assert Translator("zh")("Data") == "数据"


def test_a_message_is_a_template_a_text_or_a_plural() -> None:
    t = Translator("en")
    assert t("{left} left", left="5 min") == "5 min left"
    assert t(tr("{left} left", left=tr("done"))) == "done left"
    assert t('a literal {"brace": 1}') == 'a literal {"brace": 1}'
    assert [t.plural("{count} row", "{count} rows", count=n) for n in (0, 1, 2)] == ["0 rows", "1 row", "2 rows"]


def test_a_value_without_a_name_is_shown_as_it_is() -> None:
    names = {"done": tr("done")}
    assert Translator("zh").lookup(names, "done") == Translator("zh")("done") != "done"
    assert Translator("zh").lookup(names, "newer {state}") == "newer {state}"


@pytest.mark.parametrize("lang", LANGUAGES)
def test_every_language_is_named_and_has_a_component_pack(lang: str) -> None:
    assert OWN_NAME.render(lang)
    assert quasar_language(lang).startswith(lang)


def test_a_language_without_a_component_pack_falls_back_to_english() -> None:
    assert quasar_language("xx") == "en-US"
    assert quasar_language("pt") == "pt"
    assert quasar_language("nb") == "nb-NO"


def test_every_setting_kind_section_and_entry_field_has_a_text() -> None:
    assert all(Text(field.description) for field in fields())
    assert set(KINDS) == set(get_args(Kind))
    assert set(SECTION_NAMES) == set(SECTIONS)
    assert {place[-1] for place in PLACES if place[0] != "tags"} == set(HINTS)
