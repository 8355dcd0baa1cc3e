"""Bytes to text: the encoding is found, proved by decoding the whole file strictly, and never guessed over errors."""

from __future__ import annotations

import codecs
import io
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TextIO, TypeAlias

from sartor.base.errors import DataError

BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
SUPERSETS = {"gb2312": "gb18030", "gbk": "gb18030", "ascii": "utf-8", "euc-kr": "cp949", "iso-8859-1": "cp1252"}
"""A detected encoding → its superset, which decodes the same characters and the vendor's additions."""
SURE, CLEAR, TIMES = 0.5, 0.2, 3.0
"""A detected encoding is taken at chardet's confidence `SURE`; or at `CLEAR`, as small files give, when it is so many
`TIMES` that of the next one that decodes to another text. Else we ask instead of guessing."""
DECLARED = re.compile(rb"(?i)charset|coding")
"""chardet believes a charset that a text names; in data such a name is most often an example of HTML or of code."""
DAMAGED_UTF8 = 0.8
"""A file of which so large a part of the non-ASCII bytes is valid UTF-8 is damaged UTF-8, not another encoding."""
CHUNK = 1 << 20
SAMPLE = 1 << 20
"""Bytes that chardet is shown: all of a small file, else the stretches that hold non-ASCII bytes."""
HIGH_BYTES = bytes(range(0x80, 0x100))
WIDE = 0.9
"""UTF-16 without a mark has so large a part of its NUL bytes on one side of each pair."""
Opener: TypeAlias = Callable[[], BinaryIO]


@dataclass(frozen=True, slots=True)
class DetectedEncoding:
    """The encoding that decodes all of a file, and how that was found."""

    encoding: str
    how: str


@dataclass(frozen=True, slots=True)
class Decoded:
    """A file's text, the encoding that decodes all of it, and how that was found."""

    text: str
    encoding: str
    how: str


def read_text(path: Path, encoding: str | None = None) -> Decoded:
    """A small text file in the encoding given, or the one found. Raises: DataError as `find` does."""
    return decode(path.read_bytes(), str(path), encoding)


def decode(content: bytes, where: str, encoding: str | None = None) -> Decoded:
    """Bytes in the encoding given, or the one found. Raises: DataError as `find` does."""
    found = _detect(lambda: io.BytesIO(content), where, encoding)
    return Decoded(content.decode(found.encoding).removeprefix("\ufeff"), found.encoding, found.how)


def detect_encoding(path: Path, encoding: str | None = None, where: str | None = None) -> DetectedEncoding:
    """Byte order mark, then strict UTF-8, then detection; each proved by decoding everything strictly, in pieces.

    Raises: DataError naming the offset of the first byte that does not fit, or asking for the encoding.
    """
    return _detect(lambda: path.open("rb"), where or str(path), encoding)


def open_text(path: Path, encoding: str, newline: str = "") -> TextIO:
    """A file whose encoding was proved, as a stream of text without its byte order mark; line ends as they stand."""
    file = path.open(encoding=encoding, newline=newline)
    if file.read(1) != "\ufeff":
        file.seek(0)
    return file


def _detect(opener: Opener, where: str, encoding: str | None) -> DetectedEncoding:
    if encoding is not None:
        return _as_given(opener, where, encoding)
    with opener() as file:
        head = file.read(CHUNK)
    for mark, name in BOMS:
        if head.startswith(mark):
            _strict(opener, name, where)
            return DetectedEncoding(name, "byte order mark")
    if b"\0" in head:
        return _detect_utf16_or_32(opener, head, where)
    if b"\x1b$" in head:  # ISO-2022 is ASCII to the eye of UTF-8
        return _detected(opener, where)
    first_bad = _first_bad(opener, "utf-8")
    if first_bad is None:
        return DetectedEncoding("utf-8", "strict UTF-8")
    if _utf8_frac(opener) >= DAMAGED_UTF8:
        raise DataError(
            f"The file is UTF-8, but byte {first_bad[0]} (0x{first_bad[1]:02x}) is not.",
            where,
            "Mend that place, or name another encoding if it is none of UTF-8.",
        )
    return _detected(opener, where)


def _as_given(opener: Opener, where: str, encoding: str) -> DetectedEncoding:
    try:
        known = codecs.lookup(encoding)
        "".encode(encoding)  # refuses what is no text encoding: base64, rot13
    except (LookupError, UnicodeError, ValueError):
        raise DataError(f"There is no encoding {encoding!r}.", where, "Try utf-8, gb18030, big5 or cp1252.") from None
    if known.name == "utf-8":
        encoding = "utf-8-sig"  # a byte order mark is no text
    _strict(opener, encoding, where)
    return DetectedEncoding(encoding, "as given")


def _strict(opener: Opener, encoding: str, where: str) -> None:
    if bad := _first_bad(opener, encoding):
        raise DataError(
            f"Byte {bad[0]} (0x{bad[1]:02x}) is no {encoding.removesuffix('-sig')} text.",
            where,
            "Leave the encoding out to have it found, or name another one.",
        )


def _chunks(opener: Opener) -> Iterator[bytes]:
    with opener() as file:
        while chunk := file.read(CHUNK):
            yield chunk


def _first_bad(opener: Opener, encoding: str) -> tuple[int, int] | None:
    """Offset and value of the first byte that strict decoding refuses; None when all is text."""
    decoder = codecs.getincrementaldecoder(encoding)()
    read, last = 0, 0
    try:
        for chunk in _chunks(opener):
            read, last = read + len(chunk), chunk[-1]
            decoder.decode(chunk)
        decoder.decode(b"", True)
    except UnicodeDecodeError as error:  # its object ends where we have read to, and begins with what was kept back
        return read - len(error.object) + error.start, error.object[error.start]
    except UnicodeError:  # some codecs name no place
        return max(read - 1, 0), last
    return None


def _detect_utf16_or_32(opener: Opener, head: bytes, where: str) -> DetectedEncoding:
    """Text that holds NUL bytes without a mark: UTF-16 or UTF-32 where their places say so, else refused."""
    head = head[: len(head) // 4 * 4]
    nulls = [head[place::4].count(0) for place in range(4)]
    total = sum(nulls)
    candidates: list[str] = []
    if len(head) and total >= 0.5 * len(head):
        candidates = ["utf-32-le" if nulls[3] >= nulls[0] else "utf-32-be"]
    elif total and nulls[1] + nulls[3] >= WIDE * total:
        candidates = ["utf-16-le"]
    elif total and nulls[0] + nulls[2] >= WIDE * total:
        candidates = ["utf-16-be"]
    for name in candidates:
        if _first_bad(opener, name) is None and "\0" not in head[: CHUNK // 2].decode(name, "ignore"):
            return DetectedEncoding(name, "detected by its NUL bytes, proved strictly")
    raise DataError(
        "The file holds NUL bytes and no byte order mark.",
        where,
        "If it is text, name its encoding: --encoding utf-16-le. If not, give its name the right ending.",
    )


def _detected(opener: Opener, where: str) -> DetectedEncoding:
    import chardet

    content = _sample(opener)
    best: DetectedEncoding | None = None
    best_text, confidence, rival, tried = "", 0.0, 0.0, []
    blinded = DECLARED.sub(lambda found: b"-" * len(found[0]), content)
    for guess in chardet.detect_all(blinded, ignore_threshold=True):  # the most likely first
        name = (guess["encoding"] or "").lower()
        name = SUPERSETS.get(name, name)
        try:
            text = content.decode(name, "ignore")  # a sample may end within a character; the proof is the next line
        except (UnicodeError, LookupError):
            continue
        if _first_bad(opener, name) is not None:
            continue
        tried.append(name)
        sure = float(guess["confidence"] or 0.0)
        if best is None:
            best, best_text, confidence = (
                DetectedEncoding(name, f"detected, {sure:.0%} sure, proved strictly"),
                text,
                sure,
            )
        elif text != best_text:
            rival = sure
            break
    if best and (confidence >= SURE or (confidence >= CLEAR and confidence >= TIMES * rival)):
        return best
    raise DataError(
        "The encoding of the file cannot be found with certainty.",
        where,
        f"Name it: --encoding gb18030 (Chinese), big5, shift_jis, cp1252 … (likely: {', '.join(tried) or 'none'}).",
    )


def _sample(opener: Opener) -> bytes:
    """All of a small file; of a larger one, lines that hold non-ASCII bytes."""
    with opener() as file:
        content = file.read(SAMPLE + 1)
        if len(content) <= SAMPLE:
            return content
        file.seek(0)
        lines: list[bytes] = []
        size = 0
        while size < SAMPLE and (line := file.readline(SAMPLE)):
            if not line.isascii():
                lines.append(line)
                size += len(line)
        sample = b"".join(lines)
        return sample[: sample.rfind(b"\n") + 1] or sample


def _utf8_frac(opener: Opener) -> float:
    """The part of the non-ASCII bytes that stands in valid UTF-8 sequences, 0–1."""
    decoder = codecs.getincrementaldecoder("utf-8")("ignore")
    valid = high = 0
    for chunk in _chunks(opener):
        high += len(chunk) - len(chunk.translate(None, HIGH_BYTES))
        kept = decoder.decode(chunk).encode()
        valid += len(kept) - len(kept.translate(None, HIGH_BYTES))
    return valid / high if high else 1.0
