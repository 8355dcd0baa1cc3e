"""`split`: decides once which rows of a dataset are held out, saves it for later commands, and names what leaks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from sartor.base.errors import ConfigError, close_matches
from sartor.base.permissions import Permissions
from sartor.base.types import Origin
from sartor.checks.lint_input import row_of
from sartor.checks.near_duplicates import near_pairs
from sartor.data import split as splitting
from sartor.data.load import Loaded
from sartor.data.load import load as load_dataset
from sartor.data.read_rows import read_raw
from sartor.data.split import SavedSplit


@dataclass(frozen=True, slots=True)
class Leak:
    """A held-out row and the row to learn from that is nearly the same (similarity 1.0: equal)."""

    held_out: Origin
    train: Origin
    similarity: float


@dataclass(frozen=True, slots=True)
class SplitResult:
    """A saved split, where it lies, and the near-duplicates across it."""

    saved: SavedSplit
    path: Path
    leaks: tuple[Leak, ...]


def split(
    name: str,
    dataset_dir: str | Path = "data",
    *,
    val_size: float = 0.1,
    seed: int = 42,
    by: str | None = None,
    held_out: Iterable[str] = (),
    stage: str = "sft",
    encoding: str | None = None,
    permissions: Permissions | None = None,
) -> SplitResult:
    """Split a dataset by seed, or by the values of a column (`by`; `section` is the source section of generated rows).

    Rows of one value stay on one side; `held_out` names the values to hold out instead of drawing them. The ids are
    saved beside the registry, and train, predict, compare and check use them from then on.
    Raises: DataError as `load` does; ConfigError for an unknown column or value, or a side without rows.
    """
    folder = Path(dataset_dir)
    held_out = tuple(held_out)
    loaded = load_dataset(name, folder, stage=stage, encoding=encoding, permissions=permissions)
    if by is None:
        if held_out:
            raise ConfigError("held_out names values of a column.", "held_out", "Name the column: by=COLUMN.")
        if not val_size:
            raise ConfigError("val_size is 0.", "val_size", "Write a fraction below 1, or a count.")
        parts = splitting.split(loaded.examples, val_size, seed)
    else:
        groups = _groups(loaded, by, encoding, permissions)
        parts = splitting.split_groups(loaded.examples, groups, val_size, seed, held_out)
    learned, apart = ([*dict.fromkeys(e.origin.id for e in side)] for side in (parts.train, parts.held_out))
    files = tuple(file.sha256 for file in loaded.files)
    saved = SavedSplit(name, by or "seed", float(val_size), seed, files, tuple(learned), tuple(apart))
    return SplitResult(saved, splitting.save_split(folder, saved), _leaks(parts))


def _groups(loaded: Loaded, by: str, encoding: str | None, permissions: Permissions | None) -> dict[str, str]:
    """Row id → the text of its cell in the column `by`; an empty cell is a group too."""
    wanted = {example.origin.id for example in loaded.examples}
    groups: dict[str, str] = {}
    columns: set[str] = set()
    for origin, raw in read_raw(loaded.spec, encoding=encoding, permissions=permissions or Permissions()):
        if origin.id in wanted and isinstance(raw.value, dict):
            columns |= raw.value.keys()
            cell = raw.value.get(by)
            groups[origin.id] = "" if cell is None else str(cell)
    if by not in columns:
        near = close_matches(by, columns, 1)
        hint = f"Did you mean {near[0]!r}? " if near else ""
        raise ConfigError(f"No row has the column {by!r}.", loaded.spec.name, f"{hint}There are: {sorted(columns)}.")
    return groups


def _leaks(parts: splitting.Split) -> tuple[Leak, ...]:
    """For each held-out row the row to learn from that is most like it, where it is nearly the same."""
    learned = list({example.origin.id: example for example in parts.train}.values())
    apart = list({example.origin.id: example for example in parts.held_out}.values())
    rows = [*learned, *apart]
    best: dict[int, Leak] = {}
    for pair in near_pairs([row_of(example).text for example in rows]):
        if pair.first < len(learned) <= pair.second:
            leak = Leak(rows[pair.second].origin, rows[pair.first].origin, pair.similarity)
            if pair.second not in best or best[pair.second].similarity < leak.similarity:
                best[pair.second] = leak
    return tuple(best.values())
