"""Reads documents as text in sections: txt, md, html, pdf, docx, epub."""

from __future__ import annotations

import posixpath
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from sartor.base.errors import DataError
from sartor.base.file_budget import FileBudget
from sartor.base.limited_process import read_limited
from sartor.base.open_file import OpenFile, open_regular
from sartor.data.encoding import decode

HEADING = re.compile(
    r"^[ \t\u3000]*(?:#{1,6}[ \t]+(?P<mark>[^\n]+?)"
    r"|(?P<zh>第[0-9０-９一二三四五六七八九十百千零〇两]{1,8}[章回节][^\n。！？]{0,40})"
    r"|(?P<en>(?i:chapter)[ \t]+(?:\d+|[IVXLCDM]+)\b[^\n]{0,80}))[ \t\r]*$",
    re.MULTILINE,
)
BLOCK_TAGS = frozenset(
    ("p", "div", "li", "tr", "section", "article", "blockquote", "pre", "table", "ul", "ol", "title")
)
INVISIBLE_TAGS = frozenset(("script", "style", "noscript", "template", "head"))
MAX_UNPACKED_BYTES = 200_000_000
"""Bytes that a zipped document may unpack to: books have less than 20 MB of text, zip bombs have more."""

PIECE = 1 << 20
"""Characters in which a text comes from the process that reads it."""
DAMAGED_ZIP = (zipfile.BadZipFile, zlib.error, struct.error, OSError, EOFError, ValueError, RuntimeError, LookupError)


@dataclass(frozen=True, slots=True)
class Section:
    """A stretch of a document under one heading; `start` is the offset of `text` in the document's text."""

    title: str
    text: str
    start: int


@dataclass(frozen=True, slots=True)
class Source:
    """A document: the SHA-256 of its file, and its sections, which together are its text."""

    path: Path
    sha256: str
    sections: tuple[Section, ...]


def read_document(path: Path, encoding: str | None = None) -> Source:
    """The text of a document, read in a process with limits on memory, time and text.

    Raises: DataError for a file that is missing, empty, of an unknown kind, damaged or a zip bomb.
    """
    suffix = path.suffix.lower()
    if suffix not in READERS:
        raise DataError(
            "Cannot read documents of type {suffix!r}.",
            path,
            "Supported types: {known}.",
            suffix=path.suffix,
            known=", ".join(READERS),
        )
    if not path.exists():
        raise DataError("File not found.", path, "Check the path.")
    with open_regular(path) as file:
        arguments = {"suffix": suffix, "where": str(path), "encoding": encoding}
        reader, budget = f"{__name__}:text_pieces", FileBudget.of(file.size)
        text = "".join(read_limited(reader, file, arguments, budget, str(path)))
        sha256 = file.digest()
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if not text.strip():
        raise DataError("The document has no text.", path, "A scanned document needs OCR first.")
    return Source(path, sha256, tuple(sections_of(text)))


def text_pieces(file: OpenFile, suffix: str, where: str, encoding: str | None) -> Iterator[str]:
    """In the process with limits: the text of a document, in pieces."""
    text = READERS[suffix](file, where, encoding)
    for start in range(0, len(text), PIECE):
        yield text[start : start + PIECE]


def sections_of(text: str) -> Iterator[Section]:
    """Cut at headings; a section begins with its heading, and text before the first heading has no title."""
    places = [(found.start(), _title(found)) for found in HEADING.finditer(text)]
    if not places or places[0][0] > 0:
        places.insert(0, (0, ""))
    for (start, title), (stop, _) in zip(places, [*places[1:], (len(text), "")], strict=True):
        if text[start:stop].strip():
            yield Section(title, text[start:stop], start)


def _title(found: re.Match[str]) -> str:
    return (found["mark"] or found["zh"] or found["en"]).strip().rstrip("#").strip()


def _plain(file: OpenFile, where: str, encoding: str | None) -> str:
    return decode(file.read_bytes(), where, encoding).text


def _html(file: OpenFile, where: str, encoding: str | None) -> str:
    return html_text(file.read_bytes(), where, encoding)


def html_text(content: bytes, where: str, encoding: str | None = None) -> str:
    """The visible text, each block on its own line, with headings as in Markdown."""
    from lxml import etree
    from lxml import html as lxml_html

    declared = re.search(rb"""(?i)(?:charset|encoding)\s*=\s*["']?([\w-]+)""", content[:2048])
    try:
        text = decode(content, where, encoding).text
    except DataError:
        if encoding is not None or declared is None:
            raise
        text = decode(content, where, declared[1].decode("ascii")).text
    parser = lxml_html.HTMLParser(encoding="utf-8", remove_comments=True, remove_pis=True, no_network=True)
    try:
        root = lxml_html.document_fromstring(text.encode("utf-8"), parser=parser)
    except (etree.ParserError, etree.XMLSyntaxError):
        return ""
    pieces: list[str] = []
    for event, node in etree.iterwalk(root, events=("start", "end")):
        _walk(event, node, pieces)
    lines = (re.sub(r"[ \t\n\r\f]+", " ", line).strip() for line in "".join(pieces).split("\0"))
    return "\n\n".join(line for line in lines if line) + "\n"


def _walk(event: str, node: Any, pieces: list[str]) -> None:
    tag = node.tag if isinstance(node.tag, str) else ""
    hidden = tag in INVISIBLE_TAGS or any(above.tag in INVISIBLE_TAGS for above in node.iterancestors())
    if event == "start":
        if re.fullmatch("h[1-6]", tag):
            pieces.append("\0" + "#" * int(tag[1]) + " ")
        elif tag in BLOCK_TAGS or tag == "br":
            pieces.append("\0")
        if not hidden:
            pieces.append(node.text or "")
        return
    if tag in BLOCK_TAGS or re.fullmatch("h[1-6]", tag):
        pieces.append("\0")
    if not any(above.tag in INVISIBLE_TAGS for above in node.iterancestors()):
        pieces.append(node.tail or "")


def _pdf(file: OpenFile, where: str, encoding: str | None) -> str:
    import pypdfium2

    try:
        document = pypdfium2.PdfDocument(file.read_bytes())
        try:
            return "\n".join(page.get_textpage().get_text_bounded() for page in document)
        finally:
            document.close()
    except pypdfium2.PdfiumError as error:
        raise DataError(
            "Could not read the PDF: {error}.", where, "It may be damaged or encrypted.", error=str(error)
        ) from None


def _docx(file: OpenFile, where: str, encoding: str | None) -> str:
    import docx

    _open_zip(file, where).close()
    try:
        paragraphs = docx.Document(file.open("rb")).paragraphs
    except MemoryError:
        raise
    except Exception as error:  # whatever zipfile, lxml and python-docx raise for a damaged part
        raise DataError(
            "Could not read the Word document: {error}.", where, "Save it again as .docx.", error=str(error)
        ) from None
    lines = []
    for paragraph in paragraphs:
        level = re.fullmatch(r"Heading (\d)", (paragraph.style.name or "") if paragraph.style is not None else "")
        lines.append(f"{'#' * min(int(level[1]), 6)} {paragraph.text}" if level else paragraph.text)
    return "\n\n".join(lines)


def _open_zip(file: OpenFile, where: str) -> zipfile.ZipFile:
    try:
        archive = zipfile.ZipFile(file.open("rb"))
    except DAMAGED_ZIP:
        raise DataError("The document is damaged.", where, "It should be a zip archive.") from None
    if sum(entry.file_size for entry in archive.infolist()) > MAX_UNPACKED_BYTES:
        archive.close()
        raise DataError("The document unpacks to more than 200 MB.", where, "Split it, if it is not a zip bomb.")
    return archive


def _epub(file: OpenFile, where: str, encoding: str | None) -> str:
    from lxml import etree

    safe = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False)
    total, parts = 0, []
    with _open_zip(file, where) as archive:
        try:
            container = etree.fromstring(archive.read("META-INF/container.xml"), safe)
            package = container.find(".//{*}rootfile").get("full-path")
            book = etree.fromstring(archive.read(package), safe)
            files = {item.get("id"): item.get("href") for item in book.iterfind(".//{*}manifest/{*}item")}
            for item in book.iterfind(".//{*}spine/{*}itemref"):
                name = posixpath.normpath(posixpath.join(posixpath.dirname(package), unquote(files[item.get("idref")])))
                content = archive.read(name)
                total += len(content)  # a spine may name one file a million times
                if total > MAX_UNPACKED_BYTES:
                    raise DataError(
                        "The document unpacks to more than 200 MB.", where, "Split it, if it is not a zip bomb."
                    )
                parts.append(html_text(content, f"{where}, {name}", encoding))
        except (AttributeError, TypeError, etree.XMLSyntaxError, *DAMAGED_ZIP) as error:
            raise DataError(
                "Could not read the book: {error}.", where, "It may be damaged or copy-protected.", error=str(error)
            ) from None
    return "\n".join(parts)


READERS: Mapping[str, Callable[[OpenFile, str, str | None], str]] = {
    ".txt": _plain,
    ".md": _plain,
    ".markdown": _plain,
    ".html": _html,
    ".htm": _html,
    ".xhtml": _html,
    ".pdf": _pdf,
    ".docx": _docx,
    ".epub": _epub,
}
