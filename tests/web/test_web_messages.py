"""Both catalogues hold the same keys with the same parameters, and every key that the pages use is there."""

from __future__ import annotations

import re
from pathlib import Path
from string import Formatter

import sartor.web
from sartor.base.config import section_of
from sartor.web.form import fields
from sartor.web.i18n import Words, catalogue, explained, explanations, sentences, spoken

SOURCE = Path(sartor.web.__file__).parent


def parameters(text: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(text) if name}


def test_both_languages_say_the_same() -> None:
    en, zh = catalogue("en"), catalogue("zh")
    assert list(en) == list(zh)
    assert {k: parameters(v) for k, v in en.items()} == {k: parameters(v) for k, v in zh.items()}
    same = [k for k in en if en[k] == zh[k] and re.search(r"[A-Za-z]{4}", en[k])]
    assert same == ["app.title"]


def test_every_text_that_the_pages_name_is_there_and_none_is_left_over() -> None:
    code = "\n".join(file.read_text(encoding="utf-8") for file in SOURCE.rglob("*.py"))
    used = set(re.findall(r"""\bt\(\s*f?["']([\w.{}]+)["']""", code))
    en = catalogue("en")
    fixed = {key for key in used if "{" not in key}
    assert fixed - set(en) == set()
    families = tuple(key.partition("{")[0] for key in used if "{" in key)
    families += tuple(re.findall(r"""t\.get\(\s*f["']([\w.]+)\{""", code))
    assert [key for key in en if key not in fixed and not key.startswith(families)] == []


def test_the_language_is_chosen_then_the_browsers_then_english() -> None:
    assert spoken("zh", "en") == "zh"
    assert spoken(None, "fr-FR,zh-CN;q=0.9") == "zh"
    assert spoken("xx", "fr") == "en"
    assert Words("zh")("nav.data") == "数据"


def test_settings_are_explained_in_both_languages() -> None:
    assert set(explanations()) <= set(section_of()), "no explanation of a setting that is gone"
    drawn = {field.key for field in fields()}
    assert drawn - set(explanations()) == set(), "explain them in web/texts/settings.zh.toml"
    assert explained("zh", "seed", "x") == "一切随机的种子。"
    assert explained("zh", "newer", "in English") == explained("en", "newer", "in English") == "in English"


def test_an_error_is_said_with_what_it_names() -> None:
    zh = Words("zh")
    assert zh.sentence("There is no setting 'lora_rnk'.") == "没有设置项 'lora_rnk'。"
    assert zh.sentence("Byte 3 (0xff) is no utf-8 text.") == "第 3 字节（0xff）不是 utf-8 文字。"
    assert zh.sentence("Status 500: line\nline {} \\1") == "状态码 500：line\nline {} \\1"
    assert zh.sentence("Nobody translated this.") == "Nobody translated this."
    assert Words("en").sentence("The file is empty.") == "The file is empty."
    for pattern, text in sentences():
        assert pattern.groups == text.count("{}"), text
