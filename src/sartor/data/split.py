"""Which rows are trained on and which are held out: by seed, by groups, or as saved by `sartor split`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from sartor.base.errors import ConfigError, DataError, did_you_mean
from sartor.base.files import atomic_write
from sartor.base.types import Example
from sartor.data.dataset_info import beside
from sartor.data.load import Loaded


@dataclass(frozen=True, slots=True)
class Split:
    """Both parts in the order of the data."""

    train: list[Example]
    held_out: list[Example]


def split(examples: Sequence[Example], val_size: float, seed: int) -> Split:
    """Hold out a fraction (below 1) or a count of the rows, drawn by `seed`; a repeated row stays on one side.

    A fraction is at least one row, and leaves one for training.

    Raises: ConfigError when no training row would be left, or for a number that cannot be meant.
    """
    _check(val_size, seed)
    if not val_size:
        return Split(list(examples), [])
    ids = list(dict.fromkeys(example.origin.id for example in examples))
    count = round(val_size) if val_size >= 1 else min(max(1, round(val_size * len(ids))), len(ids) - 1)
    if count >= len(ids):
        raise ConfigError(
            "val_size {val_size:g} holds out all {count} rows.",
            "val_size",
            "Leave some rows for training.",
            val_size=val_size,
            count=len(ids),
        )
    chosen = np.random.default_rng(seed).permutation(len(ids))[:count]
    held_out = {ids[int(i)] for i in chosen}
    return _partition(examples, held_out)


def split_groups(
    examples: Sequence[Example], groups: Mapping[str, str], val_size: float, seed: int, held_out: Iterable[str] = ()
) -> Split:
    """Hold out whole groups: those named in `held_out`, else groups drawn by `seed` until `val_size` is reached.

    `groups` maps the id of each row to its group. A group that would overshoot `val_size` is passed over.
    Raises: ConfigError for an unknown group, or when one side would be empty.
    """
    _check(val_size, seed)
    sizes: dict[str, int] = {}
    for row in dict.fromkeys(example.origin.id for example in examples):
        sizes[groups[row]] = sizes.get(groups[row], 0) + 1
    chosen = set(held_out)
    if unknown := sorted(chosen - sizes.keys()):
        raise ConfigError("Unknown group {name!r}.", "held_out", did_you_mean(unknown[0], sizes), name=unknown[0])
    if not chosen:
        chosen = _draw(sizes, val_size, seed)
    if len(chosen) == len(sizes):
        raise ConfigError(
            "All {count} groups would be held out.", "by", "Leave some groups for training.", count=len(sizes)
        )
    return _partition(examples, {row for row, group in groups.items() if group in chosen})


def _check(val_size: float, seed: int) -> None:
    if not 0 <= val_size < float("inf"):
        raise ConfigError(
            "val_size must be a number of at least 0, not {value!r}.",
            "val_size",
            "Use a fraction below 1, or a number of rows.",
            value=val_size,
        )
    if seed < 0:
        raise ConfigError("seed must be at least 0, not {value!r}.", "seed", "Use 42.", value=seed)


def _draw(sizes: Mapping[str, int], val_size: float, seed: int) -> set[str]:
    total = sum(sizes.values())
    target = val_size if val_size >= 1 else val_size * total
    names = sorted(sizes)
    order = [names[int(n)] for n in np.random.default_rng(seed).permutation(len(names))]
    chosen: set[str] = set()
    count = 0
    for name in order:
        if abs(count + sizes[name] - target) < abs(count - target):
            chosen.add(name)
            count += sizes[name]
    return chosen or {min(order, key=lambda name: sizes[name])}


def _partition(examples: Sequence[Example], held_out: set[str] | frozenset[str]) -> Split:
    return Split(
        [example for example in examples if example.origin.id not in held_out],
        [example for example in examples if example.origin.id in held_out],
    )


@dataclass(frozen=True, slots=True)
class SavedSplit:
    """A split decided once, valid for exactly the files (SHA-256 in `files`) that it was made from."""

    dataset: str
    by: str
    val_size: float
    seed: int
    files: tuple[str, ...]
    train: tuple[str, ...]
    held_out: tuple[str, ...]


def split_path(dataset_dir: Path, dataset: str) -> Path:
    """The file of a dataset's saved split, beside its registry."""
    return beside(dataset_dir, dataset, "split.json")


def save_split(dataset_dir: Path, saved: SavedSplit) -> Path:
    """Save a split for every later command. Raises: RunError on a full disk."""
    path = split_path(dataset_dir, saved.dataset)
    atomic_write(path, json.dumps(asdict(saved), ensure_ascii=False, indent=1) + "\n")
    return path


def read_split(dataset_dir: Path, dataset: str) -> SavedSplit | None:
    """The saved split of a dataset; None if there is none. Raises: DataError when the file is damaged."""
    path = split_path(dataset_dir, dataset)
    if not path.exists():
        return None
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
        files, train, held_out = (tuple(map(str, saved[name])) for name in ("files", "train", "held_out"))
        by, val_size, seed = str(saved["by"]), float(saved["val_size"]), int(saved["seed"])
        return SavedSplit(str(saved["dataset"]), by, val_size, seed, files, train, held_out)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(
            "The saved split is damaged: {error}.",
            path,
            "Run `sartor split {dataset}` again.",
            error=str(error),
            dataset=dataset,
        ) from None


def split_loaded(loaded: Loaded, val_size: float, seed: int) -> Split:
    """The saved split of each dataset that has one; all other rows are split by `val_size` and `seed`.

    Raises: DataError when a dataset's files have changed since they were split; ConfigError as `split` does.
    """
    names = dict.fromkeys(example.origin.dataset for example in loaded.examples)
    folder = loaded.spec.folder_path
    saved = {name: known for name in names if (known := read_split(folder, name))}
    if not saved:
        return split(loaded.examples, val_size, seed)
    current = {file.sha256 for file in loaded.files}
    for name, known in saved.items():
        if not current.issuperset(known.files):
            raise DataError(
                "The files of {name!r} have changed since they were split.",
                split_path(folder, name),
                "Run `sartor split {name}` again, or delete the saved split.",
                name=name,
            )
    others = [example for example in loaded.examples if example.origin.dataset not in saved]
    drawn = split(others, val_size, seed).held_out if others else []
    held_out = {example.origin.id for example in drawn}
    return _partition(loaded.examples, held_out.union(*(known.held_out for known in saved.values())))
