"""Functions about datasets: import a file, load, show one example, check, split."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sartor.api.prepare_data import load_named, make_encoder
from sartor.base.config import RunConfig
from sartor.base.errors import DataError
from sartor.base.files import system_errors
from sartor.base.types import Ledger
from sartor.data.existing_dataset import Existing
from sartor.data.import_file import ImportOptions, ImportResult
from sartor.data.import_file import import_file as write_dataset
from sartor.data.load import Loaded
from sartor.data.load import load as load_dataset
from sartor.prompt import label_view as label_views

if TYPE_CHECKING:
    from sartor.prompt.label_view import LabelView


# The keywords are the public API, one for each option of the command.
@system_errors()
def import_file(
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
    sheet: str | None = None,
    existing: Existing = "refuse",
) -> ImportResult:
    """Turn a CSV, JSON or JSONL file into a dataset registered in `dataset_info.json`.

    When there is a dataset of this name, the import is refused; `existing` is `version` to write `NAME-v2` beside it,
    or `overwrite` to replace it and keep the old one in the trash. What was read, kept and refused is recorded beside
    the dataset (`read_refused`).

    Raises: DataError; nothing is written then.

    Example:
        >>> imported = sartor.import_file("questions.csv", "questions", question="question", answer="answer")
        >>> imported.loaded.ledger.read
        12
    """
    given = {**(columns or {}), **{k: v for k, v in (("question", question), ("answer", answer)) if v}}
    return write_dataset(
        Path(path), name, Path(dataset_dir), ImportOptions(encoding, delimiter, given, format, existing, sheet)
    )


@system_errors()
def load(name: str, dataset_dir: str | Path = "data", **options: Any) -> Loaded:
    """Load a registered dataset: its examples, and every skipped row with its reason.

    `options` are those of `sartor.data.load.load` (stage, max_samples, seed, encoding, permissions).

    Raises: DataError, ConfigError.

    Example:
        >>> loaded = sartor.load("chapters")
        >>> loaded.examples[0].messages[0].text
        'What is chapter 1?'
        >>> len(loaded.skipped)
        0
    """
    return load_dataset(name, Path(dataset_dir), **options)


@system_errors()
def show(
    name: str,
    config: RunConfig | None = None,
    *,
    row: int = 1,
    on_ledger: Callable[[Ledger], None] | None = None,
    **settings: Any,
) -> LabelView:
    """One example as the trainer sees it: the rendered prompt, its tokens, and which of them have labels.

    Raises: DataError when there is no such row, or the row is skipped (with its reason).

    Example:
        >>> view = sartor.show("chapters", model_name_or_path=model, row=2)
        >>> "chapter 2" in view.to_json()["renderings"][0]["text"]
        True
    """
    config = (config or RunConfig()).replace(**settings)
    loaded = load_named(config, (name,))
    if on_ledger:
        on_ledger(loaded.ledger)
    for example in loaded.examples:
        if example.origin.row == row:
            return label_views.label_view(example, make_encoder(config))
    for skipped in loaded.ledger.skipped:
        if skipped.origin.row == row:
            raise DataError(
                "Row {row} is skipped: {reason}", skipped.origin, skipped.fix, row=row, reason=skipped.reason
            )
    raise DataError(
        "No row {row}.", name, "Rows are numbered from 1; {count} were read.", row=row, count=loaded.ledger.read
    )
