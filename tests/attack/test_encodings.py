"""Many texts in many encodings, whole and mixed: what is read is right or refused, never silently wrong."""

from __future__ import annotations

import base64
import random
from collections import Counter

import pytest

from sartor.base.errors import DataError
from sartor.data.encoding import decode
from sartor.data.encoding_mix import MAX_LINES

TEXTS = {
    "zh": "《傲慢与偏见》是谁写的？,简奥斯丁。|今天天气怎么样？,今天天气非常好，适合出门。|你是谁？,我是你的助手。"
    "|北京的人口有多少？,大约两千一百八十万。|请问这个多少钱？,一共三百元，谢谢。|唐代的都城在哪里？,在长安，就是现在的西安。",
    "tw": "今天天氣如何？,今天天氣非常好，適合出門。|你是誰？,我是你的助理。|臺北有多少人？,大約兩百五十萬人。"
    "|請問這個多少錢？,總共三百元。",
    "ja": "今日の天気はどうですか？,とても良いです。|あなたは誰ですか,アシスタントです。"
    "|東京タワーの高さは？,三百三十三メートルです。",
    "ko": "오늘 날씨가 어떻습니까?,매우 좋습니다.|당신은 누구입니까,조수입니다."
    "|서울의 인구는 얼마입니까,약 천만 명입니다.",
    "ru": "Какая сегодня погода?,Очень хорошая погода.|Кто вы?,Я помощник."
    "|Сколько это стоит?,Три рубля пятьдесят копеек.",
    "fr": "Où est la bibliothèque ?,Près de l'église, à côté du café.|Qui êtes-vous ?,Je suis l'élève français.",
    "de": "Wie heißt du?,Ich heiße Jörg Müller.|Wo ist die Straße?,Über der Brücke, schöne Grüße.",
    "el": "Τι καιρό κάνει;,Πολύ καλό καιρό σήμερα.|Ποιος είσαι;,Είμαι βοηθός.",
    "ar": "كيف حال الطقس اليوم؟,الطقس جميل جدا|من أنت؟,أنا مساعد",
    "he": "מה מזג האוויר היום?,נעים מאוד|מי אתה?,אני עוזר",
    "th": "วันนี้อากาศเป็นอย่างไร,อากาศดีมาก|คุณคือใคร,ฉันเป็นผู้ช่วย",
    "pl": "Jaka jest dziś pogoda?,Bardzo ładna, słońce świeci.|Kim jesteś?,Jestem pomocnikiem, dziękuję.",
}
ENCODINGS = {
    "zh": "utf-8 utf-8-sig gb18030 gbk hz utf-7 iso2022_jp_2 utf-16-le utf-16 utf-32",
    "tw": "utf-8 big5 cp950 big5hkscs gb18030 utf-7",
    "ja": "utf-8 shift_jis cp932 euc_jp iso2022_jp utf-7",
    "ko": "utf-8 euc_kr cp949 iso2022_kr johab utf-7",
    "ru": "utf-8 cp1251 koi8-r iso8859-5 cp866 mac_cyrillic utf-7",
    "fr": "utf-8 cp1252 latin-1 cp850 mac_roman utf-7",
    "de": "utf-8 cp1252 cp850",
    "el": "utf-8 cp1253 iso8859-7",
    "ar": "utf-8 cp1256 iso8859-6",
    "he": "utf-8 cp1255 iso8859-8",
    "th": "utf-8 tis-620",
    "pl": "utf-8 cp1250 iso8859-2",
}
PAIRS = [(language, encoding) for language, names in ENCODINGS.items() for encoding in names.split()]
WHOLE_FILE = ("utf-8-sig", "hz", "utf-7", "iso2022_jp", "iso2022_jp_2", "iso2022_kr", "utf-16", "utf-16-le", "utf-32")
"""Encodings whose lines cannot be taken out of a file, or whose escapes are told apart below."""


def outcome(content: bytes, text: str) -> str:
    try:
        return "right" if decode(content, "x").text == text else "wrong"
    except DataError as error:
        return "mixed" if "two encodings" in error.what.message else "refused"


def some_lines(language: str, count: int, chance: random.Random) -> list[str]:
    line = "{}\n" if chance.random() < 0.7 else '{{"q": "{}"}}\n'
    return [line.format(chance.choice(TEXTS[language].split("|"))) for _ in range(count)]


@pytest.mark.parametrize("language", TEXTS)
def test_a_text_in_any_encoding_is_right_or_refused(language: str, trials: int) -> None:
    chance, found = random.Random(language), Counter[tuple[str, str]]()
    for _ in range(4 * trials):
        for encoding in ENCODINGS[language].split():
            text = "".join(some_lines(language, chance.choice([1, 2, 3, 5, 10, 40]), chance))
            found[encoding, outcome(text.encode(encoding), text)] += 1
    assert [key for key in found if key[1] in ("wrong", "mixed")] == []
    for encoding in {"utf-8", "utf-8-sig", "utf-16"} & set(ENCODINGS[language].split()):
        assert (encoding, "refused") not in found


@pytest.mark.parametrize(
    "encoding", ["gb18030", "hz", "big5hkscs", "euc_jp", "shift_jis", "cp949", "iso2022_jp", "utf-7"]
)
def test_a_file_of_usual_size_is_read(encoding: str, trials: int) -> None:
    language = next(name for name in TEXTS if encoding in ENCODINGS[name].split())
    chance = random.Random(1)
    for _ in range(trials):
        text = "".join(some_lines(language, 40, chance))
        assert outcome(text.encode(encoding), text) == "right"


def test_two_encodings_in_one_file_are_refused_with_the_line(trials: int) -> None:
    """Half of it in each: no line is silently wrong."""
    chance, found = random.Random(2), Counter[tuple[str, str, str]]()
    for _ in range(trials):
        for first in PAIRS:
            second = chance.choice(PAIRS)
            count = chance.choice([4, 10, 40])
            if first[1] in WHOLE_FILE or second[1] in WHOLE_FILE:
                continue
            content, text = mixed(first, second, (count, count), chance)
            if text not in (content.decode(first[1], "replace"), content.decode(second[1], "replace")):
                found[first[1], second[1], outcome(content, text)] += 1
    wrong = sum(count for key, count in found.items() if key[2] == "wrong")
    assert wrong <= 0.015 * sum(found.values()), [key for key in found if key[2] == "wrong"]
    assert [key for key in found if key[2] == "wrong" and "utf-8" in key] == []


@pytest.mark.parametrize(
    "encoding", ["gb18030", "big5hkscs", "shift_jis", "euc_jp", "cp949", "cp1251", "koi8-r", "cp866"]
)
def test_one_line_of_utf8_among_others_is_found(encoding: str, trials: int) -> None:
    language = next(name for name in TEXTS if encoding in ENCODINGS[name].split())
    chance = random.Random(3)
    for _ in range(trials):
        content, text = mixed((language, encoding), (language, "utf-8"), (MAX_LINES // 40, 1), chance)
        assert outcome(content, text) in ("mixed", "refused")


def mixed(
    first: tuple[str, str], second: tuple[str, str], counts: tuple[int, int], chance: random.Random
) -> tuple[bytes, str]:
    parts = [
        (line, encoding)
        for (language, encoding), count in zip((first, second), counts, strict=True)
        for line in some_lines(language, count, chance)
    ]
    if chance.random() < 0.5:
        chance.shuffle(parts)
    return b"".join(line.encode(encoding) for line, encoding in parts), "".join(line for line, _ in parts)


@pytest.mark.parametrize("encoding", ["hz", "utf-7", "iso2022_jp"])
def test_escapes_among_lines_of_utf8_are_named(encoding: str) -> None:
    other = "今天天气怎么样？" if encoding != "iso2022_jp" else "今日の天気はどうですか？"
    content = "第一行\n".encode() + other.encode(encoding) + b"\n"
    with pytest.raises(DataError, match="two encodings") as caught:
        decode(content, "x")
    assert caught.value.what.params["line"] == 2


@pytest.mark.parametrize(
    "text",
    [
        "C++ and a+b, 1+1=2, tel. +86 138, {a+b+c}\n" * 5,
        '(format t "~{~a~^, ~}" list) ~~ ~/.bashrc ~{x} a~b\n' * 5,
        '{"image": "' + base64.b64encode(bytes(range(256)) * 9).decode() + '"}\n',
        "\x1b[31mred\x1b[0m and \x1b(B\n" * 5,
        "Q: +AGE- means a in UTF-7? No: +a\n",
        "π ≈ 3.14159, 😀 👩‍👩‍👧, naïve, 中文, עברית\n",
        "",
    ],
)
def test_plain_text_is_not_taken_for_an_escape(text: str) -> None:
    assert decode(text.encode(), "x").encoding == "utf-8"


def test_a_charset_named_in_the_data_and_rare_characters_do_not_matter() -> None:
    text = '什么是字符集？,例如 <meta charset="iso-8859-1">。\n饕餮是什么？,一种传说中的怪兽。\n' * 20
    assert decode(text.encode("gb18030"), "x").text == text
