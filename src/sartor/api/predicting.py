"""`predict`, `score` and `chat`, and loading the engine they share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sartor.api.prepare_data import check_skipped_limit, load_named
from sartor.api.resolve_target import config_for, run_of, settings_of
from sartor.api.run_rows import no_held_out_rows, refuse_other_rows, rows_of
from sartor.base.config import RunConfig, read_config
from sartor.base.errors import ConfigError, DataError, RunError
from sartor.base.files import system_errors
from sartor.base.i18n import Text, tr
from sartor.base.permissions import Permissions
from sartor.base.rundir import RunDir
from sartor.base.types import Demonstration, Example, Feedback, Ledger, Preference, Score
from sartor.evaluation import score as scoring
from sartor.evaluation.score import score as score_texts
from sartor.inference.backends import chosen_backend
from sartor.training.stages import STAGES

if TYPE_CHECKING:
    from sartor.evaluation.predict import Predictions
    from sartor.inference.engine import Engine


def load_engine(config: RunConfig) -> Engine:
    """The engine for the model and prompt settings.

    Raises: ModelError, PromptError; ConfigError for an unknown backend, or one that answers predictions only.
    """
    from sartor.inference.engine import Engine

    refuse_reward_model(config)
    if backend := chosen_backend(config.model.infer_backend):
        raise ConfigError(
            "The backend {backend} answers predictions only.",
            f"infer_backend: {backend.name}",
            "Remove infer_backend.",
            backend=backend.name,
        )
    return Engine.from_config(config)


def refuse_reward_model(config: RunConfig) -> None:
    """Raises: ConfigError for the settings of a reward model, which scores answers and writes none."""
    if STAGES.get(config.method.stage).head == "reward":
        run = trained_run(config)
        raise ConfigError(
            "This is a reward model: it scores answers and writes none.",
            run.path if run else tr("settings"),
            "See how often it prefers the better answer: sartor compare {run}",
            run=run.path if run else "RUN",
        )


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


def predictions_folder(config: RunConfig) -> Path:
    """`output_dir`, where the settings name one that is not the run itself; else a folder in the run's `predictions/`,
    else `predictions`."""
    run, given = trained_run(config), config.train.output_dir
    if given and not (run and Path(given).resolve() == run.path.resolve()):
        return Path(given)
    if run is None:
        return Path("predictions")
    own = answers_own_rows(run, config)
    return run.predictions / f"tuned-{'held_out' if own else '+'.join(config.data.eval_dataset)}"


def rows_to_predict(config: RunConfig) -> tuple[list[Demonstration], frozenset[str], Ledger]:
    """The rows of eval_dataset, else the run's held-out rows; the ids of the run's training rows; the ledger.

    Raises: ConfigError, RunError when there are none; DataError when too many rows are skipped.
    """
    run = trained_run(config)
    if run and answers_own_rows(run, config):
        return _held_out_rows(run, config)
    loaded = load_named(config, config.data.eval_dataset or config.data.dataset)
    check_skipped_limit(loaded.ledger, config.data.max_skipped)
    rows = [row for example in loaded.examples if (row := demonstration_of(example))]
    if not rows:
        raise ConfigError("No rows to predict.", tr("settings"), "Set eval_dataset=NAME, a dataset with answers.")
    trained_on, read = _trained_on(config), loaded.ledger
    learned = sum(row.origin.id in trained_on for row in rows)
    left_out = read.left_out + read.training - len(rows)
    return rows, trained_on, replace(read, training=learned, held_out=len(rows) - learned, left_out=left_out)


def _trained_on(config: RunConfig) -> frozenset[str]:
    """The ids of the rows that any of the adapters, or the model, learned from."""
    names = config.model.adapter_name_or_path or (config.model.model_name_or_path,)
    runs = [run for name in names if (run := run_of(Path(name))) and run.data.exists()]
    return frozenset(id for run in runs for id in run.read_json("data.json")["split"]["train"])


def answers_own_rows(run: RunDir, config: RunConfig) -> bool:
    """Whether the rows to answer are those that the run held out: the settings name no others."""
    return run.data.exists() and config.data.eval_dataset in ((), settings_of(run).data.eval_dataset)


def _held_out_rows(run: RunDir, config: RunConfig) -> tuple[list[Demonstration], frozenset[str], Ledger]:
    """Raises: ConfigError for settings that would choose other rows; RunError when the run held none out."""
    refuse_other_rows(run, config, "data", allowed=frozenset({"max_samples"}))
    split = run.read_json("data.json")["split"]
    if not split["held_out"]:
        raise no_held_out_rows(run, "sartor", "predict", str(run.path))
    prepared = rows_of(run, config)
    rows = [row for example in prepared.held_out if (row := demonstration_of(example))]
    if not rows:
        raise RunError("The run's held-out rows have no answers to compare with.", run.path, _compare_it(run))
    if config.data.max_samples != settings_of(run).data.max_samples:
        rows = rows[: config.data.max_samples]
    return rows, frozenset(split["train"]), prepared.ledger


def demonstration_of(example: Example) -> Demonstration | None:
    """A row as a prompt with its answer: of a pair the chosen one, of judged answers the good ones; else None."""
    match example:
        case Demonstration():
            return example
        case Preference(prompt=prompt, chosen=chosen):
            return Demonstration((*prompt, chosen), example.origin, example.tools)
        case Feedback(messages=messages, good=True):
            return Demonstration(messages, example.origin, example.tools)
    return None


def _compare_it(run: RunDir) -> Text:
    return tr("Compare the losses: sartor compare {run}", run=run.path)


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

    For a run folder: its held-out rows, or `eval_dataset`, into its `predictions/`. For a settings file:
    `eval_dataset`, into `output_dir`.

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
    refuse_reward_model(config)
    rows, training_ids, ledger = rows_to_predict(config)
    if on_ledger:
        on_ledger(ledger)
    folder = predictions_folder(config)
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

    if len(predictions) != len(references):
        raise DataError(
            "{predictions} predictions, but {references} references.",
            "score",
            "Give one reference for each prediction; None where there is none.",
            predictions=len(predictions),
            references=len(references),
        )
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
