"""Functions about datasets: import a file, load, show one example, check, split."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sartor.api.prepare_data import load_named, make_encoder
from sartor.base.config import RunConfig
from sartor.base.errors import DataError
from sartor.base.permissions import Permissions
from sartor.base.types import Ledger
from sartor.data.import_file import ImportOptions, ImportResult
from sartor.data.import_file import import_file as write_dataset
from sartor.data.load import Loaded
from sartor.data.load import load as load_dataset
from sartor.prompt import label_view as drawing

if TYPE_CHECKING:
    from sartor.prompt.label_view import LabelView


def import_file(  # nine parameters: each is an option that people write, as on the command line
    path: str | Path,
    name: str,
    *,
    dataset_dir: str | Path = "data",
    encoding: str | None = None,
    question: str | None = None,
    answer: str | None = None,
    columns: Mapping[str, str] | None = None,
    format: Literal["sharegpt", "alpaca"] | str = "sharegpt",
    delimiter: str | None = None,
) -> ImportResult:
    """Make a checked dataset from a csv, json or jsonl file and register it in `dataset_info.json`.

    Raises: DataError naming file, place and what to do; nothing is written then.
    """
    given = {**(columns or {}), **{k: v for k, v in (("question", question), ("answer", answer)) if v}}
    return write_dataset(Path(path), name, Path(dataset_dir), ImportOptions(encoding, delimiter, given, format))


def load(name: str, dataset_dir: str | Path = "data", **options: Any) -> Loaded:
    """The examples of a registered dataset, and every row that is not one, with its reason.

    `options` are those of `sartor.data.load.load` (stage, max_samples, seed, encoding, permissions).
    """
    return load_dataset(name, Path(dataset_dir), **options)


def show(
    name: str,
    config: RunConfig | None = None,
    *,
    row: int = 1,
    on_ledger: Callable[[Ledger], None] | None = None,
    permissions: Permissions | None = None,
    **settings: Any,
) -> LabelView:
    """One example as the trainer sees it: the rendered prompt, tokens, and which of them are learned.

    Raises: DataError when there is no such row, or the row is skipped (with its reason).
    """
    config = (config or RunConfig()).replace(**settings)
    loaded = load_named(config, (name,), permissions)
    if on_ledger:
        on_ledger(loaded.ledger)
    for example in loaded.examples:
        if example.origin.row == row:
            return drawing.label_view(example, make_encoder(config))
    for skipped in loaded.ledger.skipped:
        if skipped.origin.row == row:
            raise DataError(f"Row {row} is skipped: {skipped.reason}", str(skipped.origin), skipped.fix)
    raise DataError(f"There is no row {row}.", name, f"Rows count from 1; {loaded.ledger.read} were read.")
