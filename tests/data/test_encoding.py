"""Encodings: right, or an explicit error that names a place; never silent mojibake."""

from __future__ import annotations

from pathlib import Path

import pytest

from sartor.base.errors import DataError
from sartor.data.encoding import decode, read_text

CHINESE = "问题,答案\n《傲慢与偏见》是谁写的?,简·奥斯丁,一位英国女作家。她写了六部小说。\n" * 5


@pytest.mark.parametrize("encoding", ["utf-8", "gbk", "gb18030", "big5"])
def test_chinese_is_found_without_a_word(encoding: str) -> None:
    text = (
        CHINESE
        if encoding != "big5"
        else "問題,答案\n《傲慢與偏見》是誰寫的,珍·奧斯汀,一位英國女作家。她寫了六部小說。\n" * 5
    )
    assert decode(text.encode(encoding), "x.csv").text == text


SMALL = {
    "gb18030": "问题,答案\n彭伯里的主人是谁?,达西先生。\n伊丽莎白有几个姐妹?,四个姐妹。\n",
    "big5": "問題,答案\n彭伯里的主人是誰?,達西先生。\n伊麗莎白有幾個姐妹?,四個姐妹。\n",
    "cp932": "質問,答え\n誰ですか,ジェーンです。\n",
    "cp949": "질문,답변\n오만과 편견은 누가 썼나요,제인 오스틴입니다.\n",
    "cp1252": "Frage,Antwort\nWer schrieb es?,Jane Austen schrieb es für ihre Schwester. Größe, Maß\n",
    "cp1251": "вопрос,ответ\nКто написал роман?,Джейн Остин написала роман.\n",
    "koi8-r": "вопрос,ответ\nКто написал роман?,Джейн Остин написала роман.\n",
    "iso8859-2": "otázka,odpověď\nKdo napsal román?,Napsala ho Jane Austenová, žila v Anglii.\n",
}


@pytest.mark.parametrize("encoding", SMALL)
def test_a_file_of_two_rows_is_read_rightly_or_asked_about(encoding: str) -> None:
    content = SMALL[encoding].encode(encoding)
    if encoding in ("cp1252", "cp1251", "iso8859-2"):  # one byte a letter: two rows fit several of them
        with pytest.raises(DataError, match=encoding.removeprefix("cp").replace("iso", "iso-")):
            decode(content, "x.csv")
    else:
        assert decode(content, "x.csv").text == SMALL[encoding]


def test_a_charset_that_a_text_speaks_of_is_not_believed() -> None:
    text = CHINESE + '生成HTML标签。,`<meta charset="iso-8859-1">` 和 `<?xml encoding="latin-1"?>`\n'
    assert decode(text.encode("gbk"), "x.csv").text == text


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_decides_and_is_no_text(encoding: str) -> None:
    found = decode(CHINESE.encode(encoding), "x.csv")
    assert (found.text, str(found.how)) == (CHINESE, "byte order mark")


def test_the_encoding_given_is_used_and_its_mark_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes("é,ä".encode("latin-1"))
    assert read_text(path, "latin-1").text == "é,ä"
    path.write_bytes(b"\xef\xbb\xbfa,b")
    assert read_text(path, "utf-8").text == "a,b"


def test_a_wrong_encoding_names_the_first_byte_that_does_not_fit() -> None:
    content = b"ab" + "好".encode("gbk") + b"c"
    with pytest.raises(DataError, match=r"Byte 2 \(0xba\) is not valid utf-8"):
        decode(content, "x.csv", "utf-8")
    with pytest.raises(DataError, match="Unknown encoding 'gbx'"):
        decode(content, "x.csv", "gbx")


def test_one_damaged_byte_in_utf8_is_named_and_not_read_as_another_encoding() -> None:
    content = CHINESE.encode("utf-8")
    damaged = content[:40] + b"\xff" + content[41:]
    with pytest.raises(DataError, match=r"byte \d+ \(0x") as caught:
        decode(damaged, "x.csv")
    place = int(str(caught.value.what).split("byte ")[1].split(" ")[0])
    assert 38 <= place <= 40


def test_noise_asks_for_the_encoding() -> None:
    with pytest.raises(DataError, match="--encoding"):
        decode(bytes(range(128, 256)) * 3, "x.csv")
