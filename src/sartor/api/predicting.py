"""`predict`, `score` and `chat`, and loading the engine they share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sartor.api.prepare_data import check_skipped_limit, load_named
from sartor.api.resolve_target import config_for, run_of
from sartor.base.config import RunConfig, read_config
from sartor.base.errors import ConfigError
from sartor.base.files import system_errors
from sartor.base.i18n import tr
from sartor.base.permissions import Permissions
from sartor.base.rundir import RunDir
from sartor.base.types import Demonstration, Ledger, Score
from sartor.evaluation import score as scoring
from sartor.evaluation.score import score as score_texts
from sartor.inference.backends import chosen_backend

if TYPE_CHECKING:
    from sartor.evaluation.predict import Predictions
    from sartor.inference.engine import Engine


def load_engine(config: RunConfig) -> Engine:
    """The engine for the model and prompt settings.

    Raises: ModelError, PromptError; ConfigError for an unknown backend, or one that answers predictions only.
    """
    from sartor.inference.engine import Engine

    if backend := chosen_backend(config.model.infer_backend):
        raise ConfigError(
            "The backend {backend} answers predictions only.",
            f"infer_backend: {backend.name}",
            "Remove infer_backend.",
            backend=backend.name,
        )
    return Engine.from_config(config)


def as_config(
    target: str | Path | RunConfig,
    settings: Mapping[str, Any],
    permissions: Permissions | None = None,
    *,
    unfinished: bool = False,
) -> RunConfig:
    """A RunConfig from itself, a YAML file, a run folder (`unfinished`: also one with checkpoints alone), or a model;
    `permissions` None keeps the config's own."""
    if isinstance(target, RunConfig):
        config = target
    elif str(target).endswith((".yaml", ".yml")):
        config = read_config(Path(target))
    else:
        config = config_for(target, unfinished=unfinished)
    config = config.replace(**settings) if settings else config
    return config if permissions is None else config.allowing(permissions)


def trained_run(config: RunConfig) -> RunDir | None:
    """The run whose weights the settings load, if they are a run's."""
    names = config.model.adapter_name_or_path or (config.model.model_name_or_path,)
    return run_of(Path(names[-1]))


def rows_to_predict(config: RunConfig) -> tuple[list[Demonstration], frozenset[str], Ledger]:
    """The rows of eval_dataset, else the run's held-out rows; the ids of the run's training rows; the ledger.

    Raises: ConfigError when there are none; DataError when too many rows are skipped.
    """
    run = trained_run(config)
    split = run.read_json("data.json")["split"] if run and run.data.exists() else {"train": [], "held_out": []}
    names = config.data.eval_dataset or config.data.dataset
    loaded = load_named(config, names)
    check_skipped_limit(loaded.ledger, config.data.max_skipped)
    rows = [example for example in loaded.examples if isinstance(example, Demonstration)]
    if run and not config.data.eval_dataset:
        held_out = set(split["held_out"])
        rows = [row for row in rows if row.origin.id in held_out]
    if not rows:
        raise ConfigError(
            "No rows to predict.",
            run.path if run else tr("settings"),
            "Set eval_dataset=NAME, or train with val_size=0.1 to hold rows out.",
        )
    read = loaded.ledger
    kept = {row.origin.id for row in rows}
    ledger = replace(read, training=0, held_out=len(kept), left_out=read.left_out + read.training - len(kept))
    return rows, frozenset(split["train"]), ledger


@system_errors()
def predict(
    target: str | Path | RunConfig,
    *,
    shard: str | None = None,
    merge: bool = False,
    progress: Callable[[int, int | None], None] | None = None,
    on_ledger: Callable[[Ledger], None] | None = None,
    permissions: Permissions | None = None,
    **settings: Any,
) -> Predictions:
    """Generate answers for rows and score them against the references.

    Each answer is journaled, so the same call resumes after it was killed. `shard` ("2/4") answers one part and leaves
    its journal; a call without it writes the predictions of all rows (with `merge`, only if none is missing).

    For a run folder: its held-out rows, into its `predictions/`. For a settings file: `eval_dataset`, into
    `output_dir`.

    Raises: ConfigError, DataError, ModelError, RunError.

    Example:
        >>> predictions = sartor.predict("runs/first", max_new_tokens=4)
        >>> len(predictions.rows)
        4
    """
    from sartor.evaluation.journal import Shard
    from sartor.evaluation.predict import ChosenBackend, PredictOptions
    from sartor.evaluation.predict import predict as predict_rows
    from sartor.inference.engine import Engine

    config = as_config(target, settings, permissions)
    if config.evaluation.do_predict is False:
        raise ConfigError("do_predict is false.", tr("settings"), "Remove it, or set it to true.")
    rows, training_ids, ledger = rows_to_predict(config)
    if on_ledger:
        on_ledger(ledger)
    run = trained_run(config)
    own = run is not None and not config.data.eval_dataset
    folder = run.predictions / "tuned-held_out" if own and run else Path(config.train.output_dir or "predictions")
    engine = Engine.from_config(config)
    backend = chosen_backend(config.model.infer_backend)
    options = PredictOptions(
        config.generation,
        metrics=config.evaluation.metrics,
        training_ids=training_ids,
        shard=Shard.parse(shard) if shard else None,
        merge=merge,
        backend=ChosenBackend(backend, config) if backend else None,
    )
    return predict_rows(engine, rows, folder, options, progress=progress)


def score(predictions: Sequence[str], references: Sequence[str | None]) -> dict[str, Score]:
    """Score answers against references with every metric: LLaMA-Factory's four, digit for digit, and corrected ones.

    Example:
        >>> sartor.score(["a red hat"], ["a red hat"])["exact-match"].value
        100.0
    """

    return score_texts(list(predictions), list(references))


@system_errors()
def score_file(path: str | Path, metrics: tuple[str, ...] = ("all",)) -> dict[str, Score]:
    """Score a JSONL file that has `predict` and `label` in each line, as LLaMA-Factory's predictions do.

    Raises: DataError.

    Example:
        >>> sartor.score_file("predictions.jsonl", ("exact-match",))["exact-match"].n
        1
    """

    return scoring.score_file(Path(path), metrics)


@system_errors()
def chat(
    target: str | Path | RunConfig, *, save_to: Path | None = None, permissions: Permissions | None = None
) -> None:
    """Chat with a model or a run in the terminal until /exit.

    Example:
        >>> sartor.chat("runs/first")  # doctest: +SKIP
    """
    from sartor.inference.chat import chat as chat_in_terminal

    config = as_config(target, {}, permissions, unfinished=True)
    engine = load_engine(config)
    chat_in_terminal(engine, generation=config.generation, save_to=save_to)
