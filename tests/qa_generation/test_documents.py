"""Documents become sections and chunks: every format, exact offsets, whole sentences."""

import re
import zipfile
from pathlib import Path

import pytest

from sartor.base.errors import DataError
from sartor.qa_generation.chunks import chunks_of
from sartor.qa_generation.documents import MAX_UNPACKED_BYTES, read_document, sections_of

ZH = (
    "序。\n第一回 甄士隐\n\n"
    + "话说这日天晴。他问道：“你来了么？”众人都笑了……\n" * 30
    + "第二回 贾夫人\n却说次日又来。\n"
)
EN = (
    "Preface.\n\nChapter 1\n\n"
    + "Mr. Bennet was in the library. “Why?” asked she.\n" * 30
    + "\nCHAPTER II\n\nThe end came.\n"
)


@pytest.mark.parametrize("text", [ZH, EN], ids=["zh", "en"])
@pytest.mark.parametrize("most", [40, 100, 1000])
def test_offsets_are_exact_and_sentences_whole(text: str, most: int) -> None:
    sections = list(sections_of(text))
    assert len(sections) == 3
    assert "".join(section.text for section in sections) == text
    for section in sections:
        assert text[section.start : section.start + len(section.text)] == section.text
        found = chunks_of(section.text, most)
        assert re.sub(r"\s", "", "".join(c.text for c in found)) == re.sub(r"\s", "", section.text)
        for chunk in found:
            assert section.text[chunk.start : chunk.stop] == chunk.text
            assert len(chunk.text) <= most
            assert chunk.text[-1] in "。…”.？" or chunk.text.endswith(section.title)
            assert not chunk.text.endswith("Mr.")


def test_only_a_sentence_that_is_too_long_is_cut() -> None:
    found = chunks_of("短句。" + "长" * 25 + "。完了。", 10)
    assert [c.text for c in found] == ["短句。", "长" * 10, "长" * 10, "长" * 5 + "。完了。"]


@pytest.mark.parametrize("encoding", ["utf-8", "gb18030", "utf-16"])
def test_text_of_any_encoding(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "a.txt").write_bytes(ZH.encode(encoding))
    assert [s.title for s in read_document(tmp_path / "a.txt").sections] == ["", "第一回 甄士隐", "第二回 贾夫人"]


PAGE = "<html><head><title>x</title><style>p{}</style></head><body><h1>One</h1><p>First <b>bold</b>.</p><script>bad()</script><p>Next.</p></body></html>"  # noqa: E501


def test_html(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(PAGE, encoding="utf-8")
    (section,) = read_document(tmp_path / "a.html").sections
    assert (section.title, section.text) == ("One", "# One\n\nFirst bold.\n\nNext.\n")


def test_docx(tmp_path: Path) -> None:
    import docx

    made = docx.Document()
    made.add_heading("One", 1)
    made.add_paragraph("First.")
    made.save(str(tmp_path / "a.docx"))
    assert read_document(tmp_path / "a.docx").sections[0].text == "# One\n\nFirst."


def make_epub(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(
            "META-INF/container.xml", '<container><rootfiles><rootfile full-path="o/b.opf"/></rootfiles></container>'
        )
        archive.writestr(
            "o/b.opf",
            '<package><manifest><item id="a" href="p%201.xhtml"/></manifest>'
            '<spine><itemref idref="a"/></spine></package>',
        )
        archive.writestr("o/p 1.xhtml", PAGE)


def test_epub(tmp_path: Path) -> None:
    make_epub(tmp_path / "a.epub")
    assert read_document(tmp_path / "a.epub").sections[0].text.startswith("# One\n\nFirst bold.")


def test_pdf(tmp_path: Path) -> None:
    stream = b"BT /F1 12 Tf 20 100 Td (Hello there.) Tj ET"
    bodies = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 200 200]/Contents 4 0 R/Resources<</Font<</F1 5 0 R>>>>>>",
        b"<</Length %d>>stream\n%s\nendstream" % (len(stream), stream),
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
    ]
    out = b"%PDF-1.4\n"
    for number, body in enumerate(bodies, 1):
        out += b"%d 0 obj%s endobj\n" % (number, body)
    (tmp_path / "a.pdf").write_bytes(out + b"trailer<</Root 1 0 R/Size 6>>\n%%EOF")
    assert read_document(tmp_path / "a.pdf").sections[0].text.strip() == "Hello there."


@pytest.mark.parametrize("name", ["a.pdf", "a.docx", "a.epub", "a.xyz", "a.txt"])
def test_what_cannot_be_read_says_so(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\n")
    with pytest.raises(DataError):
        read_document(tmp_path / name)


def test_a_bomb_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.epub", "w", zipfile.ZIP_DEFLATED) as archive, archive.open("x", "w") as file:
        for _ in range(MAX_UNPACKED_BYTES // 10_000_000 + 1):
            file.write(bytes(10_000_000))
    with pytest.raises(DataError, match="unpacks"):
        read_document(tmp_path / "a.epub")
