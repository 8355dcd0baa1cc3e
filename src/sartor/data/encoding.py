"""Detect the encoding of a text file; the result always decodes the whole file without errors."""

from __future__ import annotations

import codecs
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TextIO, TypeAlias

from sartor.base.errors import DataError
from sartor.base.i18n import Text, tr
from sartor.base.open_file import OpenFile, read_regular
from sartor.data.encoding_mix import OtherEncoding, escaped_encoding, other_encoding, superset, without_declarations
from sartor.data.plausible_text import strange_frac

BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
MIN_CONFIDENCE, MIN_CLEAR_CONFIDENCE, CLEAR_RATIO = 0.5, 0.2, 3.0
"""chardet's result is accepted from `MIN_CONFIDENCE`; from `MIN_CLEAR_CONFIDENCE` (small files) only if it is
`CLEAR_RATIO` times that of the next encoding that decodes to a different text. Otherwise the person is asked."""
MAX_STRANGE = 0.1
"""An encoding is not considered if more of what it makes of the file is what no language writes."""
DAMAGED_UTF8 = 0.8
"""If at least this fraction of the non-ASCII bytes is valid UTF-8, the file is damaged UTF-8, not another encoding."""
CHUNK = 1 << 20
SAMPLE = 1 << 20
"""Bytes that chardet sees: all of a small file, else lines with non-ASCII bytes."""
HIGH_BYTES = bytes(range(0x80, 0x100))
WIDE = 0.9
"""UTF-16 without a byte order mark has at least this fraction of its NUL bytes on one side of each pair."""
Opener: TypeAlias = Callable[[], BinaryIO]


@dataclass(frozen=True, slots=True)
class DetectedEncoding:
    """An encoding that decodes the whole file, and how it was found, for people."""

    encoding: str
    how: Text


@dataclass(frozen=True, slots=True)
class Decoded:
    """A file's text, its encoding, and how that was found, for people."""

    text: str
    encoding: str
    how: Text


def read_text(path: Path, encoding: str | None = None) -> Decoded:
    """A small text file, its encoding given or detected. Raises: DataError as `detect_encoding` does."""
    return decode(read_regular(path), str(path), encoding)


def decode(content: bytes, where: str, encoding: str | None = None) -> Decoded:
    """Bytes, their encoding given or detected. Raises: DataError as `detect_encoding` does."""
    found = _detect(lambda: io.BytesIO(content), where, encoding)
    return Decoded(content.decode(found.encoding).removeprefix("\ufeff"), found.encoding, found.how)


def detect_encoding(path: Path | OpenFile, encoding: str | None = None, where: str | None = None) -> DetectedEncoding:
    """Byte order mark, then strict UTF-8, then chardet; each is verified by decoding the whole file, in chunks.

    Raises: DataError naming the offset of the first invalid byte, when the encoding is ambiguous, or when lines are in
    different encodings.
    """
    return _detect(lambda: path.open("rb"), where or str(path), encoding)


def open_text(path: Path | OpenFile, encoding: str, newline: str = "") -> TextIO:
    """A text stream without the byte order mark, in an encoding that decodes the file; line ends are kept."""
    file = path.open("r", encoding=encoding, newline=newline)
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
            return DetectedEncoding(name, tr("byte order mark"))
    if b"\0" in head:
        return _detect_utf16_or_32(opener, head, where)
    first_bad = _first_bad(opener, "utf-8")
    if first_bad is None:
        return _valid_utf8(opener, where)
    if _utf8_frac(opener) >= DAMAGED_UTF8:
        raise DataError(
            "The file is UTF-8, but byte {offset} (0x{byte:02x}) is invalid.",
            where,
            "Fix the file there, or pass another encoding if it is not UTF-8.",
            offset=first_bad[0],
            byte=first_bad[1],
        )
    found = _detected(opener, where)
    if other := other_encoding(_lines(opener), found.encoding):
        raise _mixed(where, other, found.encoding)
    return found


def _lines(opener: Opener) -> Iterator[bytes]:
    """The lines of a file, long ones in pieces."""
    with opener() as file:
        while line := file.readline(CHUNK):
            yield line


def _mixed(where: str, other: OtherEncoding, encoding: str) -> DataError:
    return DataError(
        "The file has two encodings: line {line} is {other}, other lines are {encoding}.",
        where,
        "Save the lines of each encoding as a file of their own, then import both; or pass --encoding {encoding}, if "
        "that line is right as it is read then.",
        line=other.line,
        other=other.encoding,
        encoding=encoding,
    )


def _valid_utf8(opener: Opener, where: str) -> DetectedEncoding:
    """Valid UTF-8, unless its ASCII characters are the escapes of another encoding (ISO-2022, HZ, UTF-7)."""
    found = escaped_encoding(lambda: _lines(opener))
    if found is None:
        return DetectedEncoding("utf-8", tr("valid UTF-8"))
    if found.line or _first_bad(opener, found.encoding) is not None:
        raise _mixed(where, OtherEncoding(found.line or 1, found.encoding), "utf-8")
    return DetectedEncoding(found.encoding, tr("detected by its escapes"))


def _as_given(opener: Opener, where: str, encoding: str) -> DetectedEncoding:
    try:
        known = codecs.lookup(encoding)
        "".encode(encoding)  # rejects codecs that are not text encodings: base64, rot13
    except (LookupError, UnicodeError, ValueError):
        raise DataError(
            "Unknown encoding {encoding!r}.", where, "Try utf-8, gb18030, big5 or cp1252.", encoding=encoding
        ) from None
    if known.name == "utf-8":
        encoding = "utf-8-sig"  # a byte order mark is not part of the text
    _strict(opener, encoding, where)
    return DetectedEncoding(encoding, tr("as given"))


def _strict(opener: Opener, encoding: str, where: str) -> None:
    if bad := _first_bad(opener, encoding):
        raise DataError(
            "Byte {offset} (0x{byte:02x}) is not valid {encoding}.",
            where,
            "Omit the encoding to have it detected, or pass another one.",
            offset=bad[0],
            byte=bad[1],
            encoding=encoding.removesuffix("-sig"),
        )


def _chunks(opener: Opener) -> Iterator[bytes]:
    with opener() as file:
        while chunk := file.read(CHUNK):
            yield chunk


def _first_bad(opener: Opener, encoding: str) -> tuple[int, int] | None:
    """Offset and value of the first byte that strict decoding rejects; None if there is none."""
    decoder = codecs.getincrementaldecoder(encoding)()
    read, last = 0, 0
    try:
        for chunk in _chunks(opener):
            read, last = read + len(chunk), chunk[-1]
            decoder.decode(chunk)
        decoder.decode(b"", True)
    except UnicodeDecodeError as error:  # error.object ends at `read` and starts with the bytes kept from before
        return read - len(error.object) + error.start, error.object[error.start]
    except UnicodeError:  # some codecs do not report the position
        return max(read - 1, 0), last
    return None


def _detect_utf16_or_32(opener: Opener, head: bytes, where: str) -> DetectedEncoding:
    """Text with NUL bytes and no byte order mark: UTF-16 or UTF-32 if the positions of the NULs fit, else an error."""
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
            return DetectedEncoding(name, tr("detected by its NUL bytes"))
    raise DataError(
        "The file contains NUL bytes but no byte order mark.",
        where,
        "If it is text, pass its encoding, as in --encoding utf-16-le. If not, give the file the right suffix.",
    )


def _detected(opener: Opener, where: str) -> DetectedEncoding:
    import chardet

    content = _sample(opener)
    best: DetectedEncoding | None = None
    best_text, confidence, rival, tried = "", 0.0, 0.0, []
    for guess in chardet.detect_all(without_declarations(content), ignore_threshold=True):  # most likely first
        name = superset((guess["encoding"] or "").lower())
        try:
            text = content.decode(name, "ignore")  # a sample may end inside a character; the whole file is checked next
        except (UnicodeError, LookupError):
            continue
        if strange_frac(text) > MAX_STRANGE or _first_bad(opener, name) is not None:
            continue
        tried.append(name)
        found = float(guess["confidence"] or 0.0)
        if best is None:
            how = tr("detected, {confidence:.0%} confidence", confidence=found)
            best, best_text, confidence = DetectedEncoding(name, how), text, found
        elif text != best_text:
            rival = found
            break
    if best and (
        confidence >= MIN_CONFIDENCE or (confidence >= MIN_CLEAR_CONFIDENCE and confidence >= CLEAR_RATIO * rival)
    ):
        return best
    raise DataError(
        "The encoding is ambiguous.",
        where,
        "Pass --encoding gb18030 (Chinese), big5, shift_jis, cp1252 … (likely: {candidates}).",
        candidates=", ".join(tried) or "–",
    )


def _sample(opener: Opener) -> bytes:
    """All of a small file; of a larger one, lines with non-ASCII bytes."""
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
    """The fraction of the non-ASCII bytes that is in valid UTF-8 sequences, 0–1."""
    decoder = codecs.getincrementaldecoder("utf-8")("ignore")
    valid = high = 0
    for chunk in _chunks(opener):
        high += len(chunk) - len(chunk.translate(None, HIGH_BYTES))
        kept = decoder.decode(chunk).encode()
        valid += len(kept) - len(kept.translate(None, HIGH_BYTES))
    return valid / high if high else 1.0
