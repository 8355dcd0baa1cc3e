"""One row as its file holds it, before anything is asked of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Raw:
    """`row` counts from 1; `line` where the file has lines; `fault` says why `value` could not be read."""

    row: int
    line: int | None
    value: Any
    fault: str | None = None
