"""Values between the page and the process that reads for it, as JSON: plain values, and the dataclasses named here."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sartor.base import errors
from sartor.base.errors import SartorError
from sartor.base.i18n import Text
from sartor.base.types import Ledger, Note, Origin, Place, Skipped
from sartor.checks.finding import Finding
from sartor.data.import_file import FileInspection
from sartor.data.import_record import ImportSummary, RefusedRow
from sartor.data.json_stream import LiteralNumber
from sartor.prompt.label_view import LabelView, Piece, RenderedText
from sartor.web.shown import (
    Checked,
    Group,
    ImportOutcome,
    JsonText,
    ReadingChoices,
    ShownDataset,
    ShownRow,
)

CLASSES: Mapping[str, type] = {
    made.__name__: made
    for made in (
        Text,
        Ledger,
        Note,
        Origin,
        Place,
        Skipped,
        Finding,
        FileInspection,
        ImportSummary,
        RefusedRow,
        JsonText,
        LabelView,
        Piece,
        RenderedText,
        Checked,
        Group,
        ImportOutcome,
        ReadingChoices,
        ShownDataset,
        ShownRow,
    )
}
"""The only classes that are made from what the other process writes."""
MARK = "@"
"""The key that says what an object stands for; a dict that has this key itself is written as pairs."""


def dumps(value: Any) -> bytes:
    """One line of JSON."""
    return json.dumps(_plain(value), ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n"


def loads(line: bytes) -> Any:
    """What `dumps` wrote. Raises: ValueError for anything else."""
    return _value(json.loads(line))


def _plain(value: Any) -> Any:
    if isinstance(value, LiteralNumber):
        return {MARK: "number", "values": value.literal}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Mapping):
        if all(isinstance(key, str) for key in value) and MARK not in value:
            return {key: _plain(part) for key, part in value.items()}
        return {MARK: "pairs", "values": [[_plain(key), _plain(part)] for key, part in value.items()]}
    if isinstance(value, tuple):
        return {MARK: "tuple", "values": [_plain(part) for part in value]}
    if isinstance(value, list):
        return [_plain(part) for part in value]
    if isinstance(value, Path):
        return {MARK: "path", "values": str(value)}
    if isinstance(value, SartorError):
        return {MARK: "error", "kind": type(value).__name__, "values": value.to_json()}
    if type(value).__name__ in CLASSES:
        fields = {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return {MARK: type(value).__name__, "values": fields}
    return str(value)


def _value(value: Any) -> Any:
    if isinstance(value, list):
        return [_value(part) for part in value]
    if not isinstance(value, dict):
        return value
    kind, content = value.get(MARK), value.get("values")
    match kind:
        case None:
            return {key: _value(part) for key, part in value.items()}
        case "pairs":
            return {_value(key): _value(part) for key, part in content or ()}
        case "tuple":
            return tuple(_value(part) for part in content or ())
        case "number":
            return LiteralNumber(str(content))
        case "path":
            return Path(str(content))
        case "error":
            return _error(str(value["kind"]), content or {})
    if kind not in CLASSES:
        raise ValueError(f"unknown kind {kind!r}")
    return CLASSES[kind](**{key: _value(part) for key, part in (content or {}).items()})


def _error(kind: str, content: Mapping[str, Any]) -> SartorError:
    made = getattr(errors, kind, SartorError)
    what, where, fix = (Text.from_json(content.get(name) or "") for name in ("what", "where", "fix"))
    code = str(content.get("code", ""))
    if not (isinstance(made, type) and issubclass(made, SartorError)) or made is errors.Interrupted:
        made = SartorError
    return made(what, where, fix, code=code)
