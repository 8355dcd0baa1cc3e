"""`compare A B …`: base models, runs, checkpoints and endpoints answer the same held-out rows, one after the other."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sartor.api.comparing import with_token_limit
from sartor.api.predicting import load_engine
from sartor.api.prepare_data import load_named, prepare_rows
from sartor.api.resolve_target import config_for, run_of
from sartor.base.config import RunConfig, parse_override, read_yaml
from sartor.base.errors import ConfigError, DataError, SartorError
from sartor.base.files import atomic_write
from sartor.base.i18n import Text, ntr, tr
from sartor.base.permissions import Permissions
from sartor.base.process import release_memory
from sartor.base.rundir import RunDir
from sartor.base.types import Demonstration, Example, Prediction, TokenSequence
from sartor.prompt.encode import Encoder

if TYPE_CHECKING:
    from sartor.evaluation.multi_model import Candidate, Comparison
    from sartor.inference.engine import Engine

Progress = Callable[[int, int | None], None]
BASE = "base"


def is_endpoint(target: str) -> bool:
    """Whether a thing to compare is an address: `http://host:port/v1#model`."""
    return target.startswith(("http://", "https://"))


def compare_several(
    *things: str | Path,
    overrides: Iterable[str] = (),
    key_env: str | None = None,
    out: str | Path | None = None,
    trust_remote_code: bool = False,
    progress: Progress | None = None,
    permissions: Permissions | None = None,
) -> Comparison:
    """Each thing against the first, over the same held-out rows; writes comparison.json and each one's predictions.

    A thing is a run's folder, a checkpoint or adapter, a model, `base` (the first run's base model), or an
    OpenAI-compatible address with the model after `#`; `key_env` names the environment variable with its key. The rows
    are those that the first run held out, or `eval_dataset`; rows that any of the runs learned from are left out.

    Raises: ConfigError for fewer than two things or without rows; RunError, ModelError, DataError, EndpointError.
    """
    from sartor.evaluation.multi_model import make_comparison

    names, overrides = [str(thing) for thing in things], tuple(overrides)
    if len(names) < 2:
        raise ConfigError("One thing has nothing to be compared with.", "compare", "Name two or more, or one run.")
    runs = [run for name in names if not is_endpoint(name) and (run := run_of(Path(name)))]
    if BASE in names and not runs:
        raise ConfigError("There is no run whose base is meant.", BASE, "Name the model itself, or a run beside it.")
    shared = _settings(runs[0] if runs else None, names, overrides)
    anew = any(parse_override(item)[0] == "eval_dataset" for item in overrides)
    rows, notes = _rows(shared, runs, permissions, anew=anew, trust_remote_code=trust_remote_code)
    folder = Path(out) if out else (runs[0].path / "comparisons" if runs else Path("comparisons")) / _slug(names)
    contestants: list[Candidate] = []
    for place, name in enumerate(names):
        part = folder / f"{place + 1}-{_short(name)}"
        if is_endpoint(name):
            contestants.append(_ask_endpoint(name, rows, part, shared, key_env, progress))
            continue
        config = _config(name, shared, overrides)
        contestants.append(_ask_engine(name, config, shared, rows, part, trust_remote_code, progress))
        release_memory()
    sections = [row.origin.section for row in rows]
    comparison = make_comparison(
        contestants,
        [row.origin.id for row in rows],
        metric=shared.evaluation.primary_metric,
        clusters=sections if any(sections) else None,
        seed=shared.train.seed,
        notes=notes,
    )
    atomic_write(folder / "comparison.json", json.dumps(comparison.to_json(), ensure_ascii=False, indent=2) + "\n")
    return comparison


def _settings(run: RunDir | None, names: Sequence[str], overrides: Iterable[str]) -> RunConfig:
    """The settings that all share: the first run's data and decoding, and what is written over them."""
    asked = dict(RunConfig.from_dict(read_yaml(run.config), str(run.config)).given) if run else {}
    asked = {key: value for key, value in asked.items() if not key.startswith("do_")}
    local = next((name for name in names if not is_endpoint(name) and name != BASE), None)
    asked.setdefault("model_name_or_path", local or "none")
    return RunConfig.from_dict({**asked, **dict(parse_override(item) for item in overrides)})


def _config(name: str, shared: RunConfig, overrides: Iterable[str]) -> RunConfig:
    """One thing's own model, adapter and template."""
    if name != BASE:
        return config_for(name, overrides)
    asked = {key: value for key, value in shared.given.items() if key != "adapter_name_or_path"}
    return RunConfig.from_dict(asked)


def _rows(
    shared: RunConfig, runs: Sequence[RunDir], permissions: Permissions | None, *, anew: bool, trust_remote_code: bool
) -> tuple[list[Demonstration], list[Text]]:
    """The rows that all answer, and what is to be said of them; `anew`: those named now, not those held out.

    Raises: ConfigError, DataError when none is left.
    """
    from sartor.api.prepare_data import make_encoder

    anew = anew or ("eval_dataset" in shared.given and not (runs and _held_out(runs[0])))
    if runs and not anew:
        encoder = make_encoder(shared, trust_remote_code=trust_remote_code)
        wanted = set(_held_out(runs[0]))
        found: list[Example] = [e for e in prepare_rows(shared, encoder, permissions).held_out if e.origin.id in wanted]
    else:
        found = list(load_named(shared, shared.data.eval_dataset, permissions).examples)
    rows = [row for row in found if isinstance(row, Demonstration)]
    learned = {run.path.name: set(run.read_json("data.json")["split"]["train"]) for run in runs}
    seen = {row.origin.id for row in rows for ids in learned.values() if row.origin.id in ids}
    notes = [
        ntr(
            "{count} of {total} rows is left out: {run} was trained on it.",
            "{count} of {total} rows are left out: {run} was trained on them.",
            count=count,
            total=len(rows),
            run=name,
        )
        for name, ids in learned.items()
        if (count := sum(row.origin.id in ids for row in rows))
    ]
    rows = [row for row in rows if row.origin.id not in seen]
    for run in runs:
        same, said = _require_same_rows(run, rows, permissions)
        rows = [row for row in rows if row.origin.id not in same]
        notes += said
    if not rows:
        raise DataError(
            "No row is left that all could be asked fairly.",
            ", ".join(map(str, learned)) or "eval_dataset",
            "Name rows that none of the runs learned from: eval_dataset=NAME.",
        )
    return rows, notes


def _require_same_rows(
    run: RunDir, rows: Sequence[Demonstration], permissions: Permissions | None
) -> tuple[set[str], list[Text]]:
    """Rows whose text a run learned, under whatever name, and what is to be said of them and of those nearly so."""
    from sartor.checks.leaks import find_leaks

    config = RunConfig.from_dict(read_yaml(run.config), str(run.config))
    learned = set(run.read_json("data.json")["split"]["train"])
    try:
        examples = load_named(config, config.data.dataset, permissions).examples
    except SartorError as error:
        return set(), [
            tr(
                "Could not check whether {run} was trained on the same texts: {error}",
                run=run.path.name,
                error=error.what,
            )
        ]
    found = find_leaks([example for example in examples if example.origin.id in learned], rows)
    same = {leak.held_out for leak in found if leak.similarity == 1.0}
    near, name = {leak.held_out for leak in found} - same, run.path.name
    left_out = ntr(
        "{count} of {total} rows is left out: {run} was trained on the same text.",
        "{count} of {total} rows are left out: {run} was trained on the same texts.",
        count=len(same),
        total=len(rows),
        run=name,
    )
    alike = ntr(
        "{count} row is nearly identical to a training row of {run}: its answers may show memory.",
        "{count} rows are nearly identical to training rows of {run}: their answers may show memory.",
        count=len(near),
        run=name,
    )
    return same, [left_out] * bool(same) + [alike] * bool(near)


def _held_out(run: RunDir) -> list[str]:
    ids: list[str] = run.read_json("data.json")["split"]["held_out"]
    return ids


def _ask_engine(
    name: str,
    config: RunConfig,
    shared: RunConfig,
    rows: Sequence[Demonstration],
    folder: Path,
    trust_remote_code: bool,
    progress: Progress | None,
) -> Candidate:
    from sartor.evaluation.multi_model import Candidate
    from sartor.evaluation.predict import predict

    engine = load_engine(config, trust_remote_code=trust_remote_code)
    encoded = _encoded(engine.encoder, rows)
    losses = engine.losses(encoded)
    done = predict(
        engine,
        rows,
        folder,
        generation=with_token_limit(shared, encoded).generation,
        metrics=shared.evaluation.metrics,
        losses={loss.id: loss.per_token for loss in losses},
        progress=progress,
    )
    return Candidate(
        _short(name),
        _fingerprint(engine),
        done.scores,
        tuple(loss.per_token for loss in losses),
        tuple(loss.label_tokens for loss in losses),
    )


def _fingerprint(engine: Engine) -> str:
    return engine.fingerprint("tuned")


def _encoded(encoder: Encoder, rows: Sequence[Demonstration]) -> list[TokenSequence]:
    """The rows as this model's tokens. Raises: DataError naming the first that it cannot take."""
    found = encoder.encode_all(list(rows))
    if found.skipped:
        skipped = found.skipped[0]
        raise DataError(f"A row cannot be shown to every model: {skipped.reason}", str(skipped.origin), skipped.fix)
    return [row for row in found.encoded if isinstance(row, TokenSequence)]


def _ask_endpoint(
    address: str,
    rows: Sequence[Demonstration],
    folder: Path,
    shared: RunConfig,
    key_env: str | None,
    progress: Progress | None,
) -> Candidate:
    """Raises: ConfigError for an address without a model or a key that is not set; EndpointError."""
    from sartor.base.openai_client import Address, ChatClient, RequestOptions, read_key
    from sartor.evaluation.multi_model import Candidate
    from sartor.evaluation.predict import write
    from sartor.evaluation.score import Scorer

    endpoint = Address.parse(address)
    limit = shared.generation.max_new_tokens
    client = ChatClient(endpoint, RequestOptions(max_tokens=limit), read_key(endpoint.url, key_env))
    scoring, answers, scored = Scorer(shared.evaluation.metrics), [], []
    for number, row in enumerate(rows, 1):
        answer = client.complete(row.messages[:-1])
        scored.append(scoring.add(answer.text, row.messages[-1].text))
        question = next((turn.text for turn in reversed(row.messages[:-1]) if turn.role == "user"), "")
        answers.append(
            Prediction(
                row.origin.id,
                question,
                question,
                row.messages[-1].text,
                answer.text,
                "length" if answer.tokens >= limit else answer.stop_reason,
                answer.prompt_tokens,
                answer.tokens,
                section=row.origin.section,
            )
        )
        if progress:
            progress(number, len(rows))
    write(folder, answers, scored, {"endpoint": endpoint.url, "model": endpoint.model, "rows": len(rows)})
    return Candidate(_short(address), address, scoring.result())


def _short(name: str) -> str:
    """A name for tables and folders: a checkpoint with its run, an endpoint with its model."""
    if is_endpoint(name):
        return re.sub(r"[^\w.-]+", "-", name.partition("#")[2] or name)
    path = Path(name)
    parts = path.resolve().parts[-2:] if path.name.startswith("checkpoint-") else (path.name,)
    return re.sub(r"[^\w.-]+", "-", "-".join(parts))


def _slug(names: Sequence[str]) -> str:
    return "-vs-".join(_short(name) for name in names)[:120]
