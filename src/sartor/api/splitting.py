"""`split`: chooses the held-out rows of a dataset, saves the choice for later commands, and finds leaks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from sartor.base.errors import ConfigError, did_you_mean
from sartor.base.files import system_errors
from sartor.base.permissions import Permissions
from sartor.checks.leaks import Leak, find_leaks
from sartor.data import split as splitting
from sartor.data.load import Loaded
from sartor.data.load import load as load_dataset
from sartor.data.read_rows import read_raw
from sartor.data.split import SavedSplit


@dataclass(frozen=True, slots=True)
class SplitResult:
    """A saved split, its file, and the near-duplicates across it."""

    saved: SavedSplit
    path: Path
    leaks: tuple[Leak, ...]


# The keywords of the public API, one for each option of the command.
@system_errors()
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

    Rows with the same value stay on one side; `held_out` gives the values to hold out instead of drawing them. The
    ids are saved next to the registry, and train, predict, compare and check use them from then on.

    Raises: DataError as `load` does; ConfigError for an unknown column or value, or a side without rows.

    Example:
        >>> result = sartor.split("chapters", val_size=3, seed=7)
        >>> len(result.saved.held_out)
        3
    """
    folder = Path(dataset_dir)
    held_out = tuple(held_out)
    loaded = load_dataset(name, folder, stage=stage, encoding=encoding, permissions=permissions)
    if by is None:
        if held_out:
            raise ConfigError("held_out needs a column.", "held_out", "Give the column of its values: by=COLUMN.")
        if not val_size:
            raise ConfigError("val_size is 0.", "val_size", "Use a fraction below 1, or a number of rows.")
        parts = splitting.split(loaded.examples, val_size, seed)
    else:
        groups = _groups(loaded, by, encoding, permissions)
        parts = splitting.split_groups(loaded.examples, groups, val_size, seed, held_out)
    train_ids, held_out_ids = (
        tuple(dict.fromkeys(example.origin.id for example in side)) for side in (parts.train, parts.held_out)
    )
    files = tuple(file.sha256 for file in loaded.files)
    saved = SavedSplit(name, by or "seed", float(val_size), seed, files, train_ids, held_out_ids)
    return SplitResult(saved, splitting.save_split(folder, saved), tuple(find_leaks(parts.train, parts.held_out)))


def _groups(loaded: Loaded, by: str, encoding: str | None, permissions: Permissions | None) -> dict[str, str]:
    """Row id → the text of its cell in the column `by`; rows with an empty cell are a group too."""
    wanted = {example.origin.id for example in loaded.examples}
    groups: dict[str, str] = {}
    columns: set[str] = set()
    for origin, raw in read_raw(loaded.spec, encoding=encoding, permissions=permissions or Permissions()):
        if origin.id in wanted and isinstance(raw.value, dict):
            columns |= raw.value.keys()
            cell = raw.value.get(by)
            groups[origin.id] = "" if cell is None else str(cell)
    if by not in columns:
        raise ConfigError("No row has the column {column!r}.", loaded.spec.name, did_you_mean(by, columns), column=by)
    return groups
