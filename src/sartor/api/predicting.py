"""Functions that use a model: predict, score, chat, export."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sartor.api.prepare_data import check_skipped_limit, load_named
from sartor.api.resolve_target import config_for, run_of
from sartor.base.config import RunConfig, read_config
from sartor.base.errors import ConfigError
from sartor.base.permissions import Permissions
from sartor.base.rundir import RunDir
from sartor.base.types import Demonstration, Ledger, Score
from sartor.inference.backends import chosen_backend

if TYPE_CHECKING:
    from sartor.evaluation.predict import Predictions
    from sartor.inference.engine import Engine


def load_engine(config: RunConfig, *, trust_remote_code: bool = False, predicts: bool = False) -> Engine:
    """The engine that the settings describe: model, adapter, template, thinking.

    Raises: ModelError, PromptError; ConfigError for an unknown backend, or one that answers predictions only.
    """
    from sartor.inference.engine import Engine

    model, prompt = config.model, config.prompt
    if (backend := chosen_backend(model.infer_backend)) and not predicts:
        raise ConfigError(
            "The backend {backend} answers predictions only.",
            f"infer_backend: {backend.name}",
            "Remove infer_backend.",
            backend=backend.name,
        )
    return Engine.load(
        model.model_name_or_path,
        model.adapter_name_or_path[0] if model.adapter_name_or_path else None,
        template=prompt.template,
        default_system=prompt.default_system,
        enable_thinking=prompt.enable_thinking,
        dtype=model.dtype,
        device="cpu" if model.use_cpu else model.device,
        trust_remote_code=trust_remote_code,
    )


def as_config(target: str | Path | RunConfig, settings: dict[str, Any]) -> RunConfig:
    """A RunConfig from itself, a YAML file, a run's folder, or a model."""
    if isinstance(target, RunConfig):
        return target.replace(**settings) if settings else target
    if str(target).endswith((".yaml", ".yml")):
        return read_config(Path(target), **settings)
    return config_for(target).replace(**settings)


def trained_run(config: RunConfig) -> RunDir | None:
    """The run whose weights the settings load, if they are a run's."""
    names = config.model.adapter_name_or_path or (config.model.model_name_or_path,)
    return run_of(Path(names[-1]))


def rows_to_predict(
    config: RunConfig, permissions: Permissions | None = None
) -> tuple[list[Demonstration], frozenset[str], Ledger]:
    """The rows of eval_dataset, else the run's held-out rows; the ids that the run learned from; where rows went.

    Raises: ConfigError when there are none; DataError when too many rows are skipped.
    """
    run = trained_run(config)
    split = run.read_json("data.json")["split"] if run and run.data.exists() else {"train": [], "held_out": []}
    names = config.data.eval_dataset or config.data.dataset
    loaded = load_named(config, names, permissions)
    check_skipped_limit(loaded.ledger, config.data.max_skipped)
    rows = [example for example in loaded.examples if isinstance(example, Demonstration)]
    if run and not config.data.eval_dataset:
        held_out = set(split["held_out"])
        rows = [row for row in rows if row.origin.id in held_out]
    if not rows:
        raise ConfigError(
            "There are no rows to predict.",
            str(run.path) if run else "settings",
            "Name some: eval_dataset=NAME; or train with val_size=0.1, so that rows are held out.",
        )
    read = loaded.ledger
    kept = {row.origin.id for row in rows}
    ledger = replace(read, training=0, held_out=len(kept), left_out=read.left_out + read.training - len(kept))
    return rows, frozenset(split["train"]), ledger


def predict(
    target: str | Path | RunConfig,
    *,
    trust_remote_code: bool = False,
    shard: str | None = None,
    merge: bool = False,
    progress: Callable[[int, int | None], None] | None = None,
    on_ledger: Callable[[Ledger], None] | None = None,
    permissions: Permissions | None = None,
    **settings: Any,
) -> Predictions:
    """Answer rows with a model and score the answers against the references.

    Each answer is journalled: the same call goes on where a killed one stopped. `shard` ("2/4") answers a part and
    leaves its journal; a call without it (with `merge`: only when none is missing) writes the predictions of all.

    A run's folder: its held-out rows, into its `predictions/`. A settings file: `eval_dataset`, into `output_dir`.
    Raises: ConfigError, DataError, ModelError, RunError.
    """
    from sartor.evaluation import predict as predicting
    from sartor.evaluation.journal import Shard

    config = as_config(target, settings)
    if config.evaluation.do_predict is False:
        raise ConfigError("do_predict is false.", "settings", "Leave it out, or write true.")
    rows, learned, ledger = rows_to_predict(config, permissions)
    if on_ledger:
        on_ledger(ledger)
    run = trained_run(config)
    own = run is not None and not config.data.eval_dataset
    folder = run.predictions / "tuned-held_out" if own and run else Path(config.train.output_dir or "predictions")
    engine = load_engine(config, trust_remote_code=trust_remote_code, predicts=True)
    backend = chosen_backend(config.model.infer_backend)
    permitted = replace(config.permissions, trust_remote_code=trust_remote_code)
    return predicting.predict(
        engine,
        rows,
        folder,
        generation=config.generation,
        learned_ids=learned,
        backend=predicting.ChosenBackend(backend, config.model.model_name_or_path, permitted) if backend else None,
        metrics=config.evaluation.metrics,
        progress=progress,
        shard=Shard.parse(shard) if shard else None,
        merge=merge,
    )


def score(predictions: Sequence[str], references: Sequence[str | None]) -> dict[str, Score]:
    """All metrics over answers and references: LLaMA-Factory's four, digit for digit, and the corrected ones."""
    from sartor.evaluation.score import score as score_texts

    return score_texts(list(predictions), list(references))


def score_file(path: str | Path, metrics: tuple[str, ...] = ("all",)) -> dict[str, Score]:
    """The same over a JSONL file with `predict` and `label` in each line, whoever made it."""
    from sartor.evaluation import score as scoring

    return scoring.score_file(Path(path), metrics)


def chat(target: str | Path | RunConfig, *, save_to: Path | None = None, trust_remote_code: bool = False) -> None:
    """Talk to a model or a run in the terminal until /exit."""
    from sartor.inference.chat import chat as chat_in_terminal

    config = as_config(target, {})
    engine = load_engine(config, trust_remote_code=trust_remote_code)
    chat_in_terminal(engine, generation=config.generation, save_to=save_to)
