"""`compare A B …`: base models, runs, checkpoints and endpoints on the same held-out rows."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sartor.api.comparing import with_margin, with_token_limit
from sartor.api.predicting import demonstration_of, load_engine
from sartor.api.prepare_data import Progress, load_named
from sartor.api.resolve_target import config_for, given_settings, run_of, settings_of
from sartor.api.run_rows import no_held_out_rows, refuse_other_rows, rows_of
from sartor.base.api_keys import base_url_variable, bound_hosts, host_of, read_key
from sartor.base.config import RunConfig, parse_override
from sartor.base.errors import ConfigError, DataError, SartorError
from sartor.base.files import atomic_write, system_errors
from sartor.base.i18n import Text, ntr, tr
from sartor.base.openai_client import Address, ChatClient, RequestOptions
from sartor.base.permissions import NOTHING_ALLOWED, Permissions
from sartor.base.process import release_memory
from sartor.base.rundir import RunDir
from sartor.base.types import Demonstration, Example, Prediction, TokenSequence
from sartor.checks.leaks import find_leaks
from sartor.evaluation.multi_model import Candidate, make_comparison
from sartor.evaluation.preferences import losses_by_row
from sartor.evaluation.score import Scorer
from sartor.model.known_names import require_known
from sartor.prompt.encode import Encoder

if TYPE_CHECKING:
    from sartor.evaluation.multi_model import Comparison

BASE = "base"


def is_endpoint(target: str) -> bool:
    """Whether a target is an address: `http://host:port/v1#model`."""
    return target.startswith(("http://", "https://"))


@system_errors()
def compare_several(
    *targets: str | Path,
    overrides: Iterable[str] = (),
    margin: float | None = None,
    key_env: str | None = None,
    out: str | Path | None = None,
    progress: Progress | None = None,
    permissions: Permissions = NOTHING_ALLOWED,
) -> Comparison:
    """Compare each target with the first, on the same held-out rows. Writes comparison.json and the predictions.

    A target is a run folder, a checkpoint or adapter, a model, `base` (the first run's base model), or an
    OpenAI-compatible address with the model after `#`; `key_env` is the environment variable with its key. `margin` is
    the smallest difference in the primary metric that is worth having. The rows
    are those that the first run held out, or `eval_dataset`; rows that any of the runs was trained on are left out.

    Raises: ConfigError for fewer than two targets or without rows; RunError, ModelError, DataError, EndpointError.

    Example:
        >>> comparison = sartor.compare_several("base", "runs/first", overrides=["max_new_tokens=4"])
        >>> [candidate.name for candidate in comparison.candidates]
        ['base', 'first']
    """

    names, overrides = [str(target) for target in targets], with_margin(overrides, margin)
    if len(names) < 2:
        raise ConfigError("Give at least two models to compare.", "compare", "Or one run, to compare it with its base.")
    keys = _keys([Address.parse(name) for name in names if is_endpoint(name)], key_env)
    for name in names:
        if name != BASE and not is_endpoint(name):
            require_known(name)
    runs = [run for name in names if not is_endpoint(name) and (run := run_of(Path(name)))]
    if BASE in names and not runs:
        raise ConfigError("`base` needs a run next to it.", BASE, "Give the model itself, or add a run.")
    shared = _shared_settings(runs[0] if runs else None, names, overrides, permissions)
    own_rows = any(parse_override(item)[0] == "eval_dataset" for item in overrides)
    rows, notes = _rows(shared, runs, names, own_rows)
    folder = Path(out) if out else (runs[0].path / "comparisons" if runs else Path("comparisons")) / _slug(names)
    candidates: list[Candidate] = []
    for place, name in enumerate(names):
        part = folder / f"{place + 1}-{_short(name)}"
        if is_endpoint(name):
            candidates.append(_ask_endpoint(name, rows, part, shared, keys, progress))
        else:
            candidates.append(_ask_engine(name, _config(name, shared, overrides), shared, rows, part, progress))
            release_memory()
    sections = [row.origin.section for row in rows]
    comparison = make_comparison(
        candidates,
        [row.origin.id for row in rows],
        metric=shared.evaluation.primary_metric,
        margin=shared.evaluation.margin,
        clusters=sections if any(sections) else None,
        notes=notes,
    )
    atomic_write(folder / "comparison.json", json.dumps(comparison.to_json(), ensure_ascii=False, indent=2) + "\n")
    return comparison


def _shared_settings(
    run: RunDir | None, names: Sequence[str], overrides: Iterable[str], permissions: Permissions
) -> RunConfig:
    """The first run's data and decoding, with the overrides."""
    if run:
        given = given_settings(run)
    else:
        given = {"model_name_or_path": next((name for name in names if not is_endpoint(name)), "none")}
    settings = {**given, **dict(parse_override(item) for item in overrides)}
    return RunConfig.from_dict(settings, permissions=permissions)


def _config(name: str, shared: RunConfig, overrides: Iterable[str]) -> RunConfig:
    """A target's own model, adapter and template."""
    if name != BASE:
        return config_for(name, overrides, shared.permissions)
    given = {key: value for key, value in shared.given.items() if key != "adapter_name_or_path"}
    return RunConfig.from_dict(given, permissions=shared.permissions)


def _rows(
    shared: RunConfig, runs: Sequence[RunDir], names: Sequence[str], own_rows: bool
) -> tuple[list[Demonstration], list[Text]]:
    """The rows that all answer, and notes about those left out; `own_rows`: eval_dataset, not the run's held-out rows.

    Raises: ConfigError; DataError when none is left.
    """
    own_rows = own_rows or ("eval_dataset" in shared.given and not (runs and _held_out(runs[0])))
    found: Sequence[Example]
    if runs and not own_rows:
        if not _held_out(runs[0]):
            raise no_held_out_rows(runs[0], "sartor", "compare", *names)
        refuse_other_rows(runs[0], shared, "data")
        found = rows_of(runs[0], shared).held_out
    else:
        found = load_named(shared, shared.data.eval_dataset).examples
    rows = [row for example in found if (row := demonstration_of(example))]
    trained_on = {run.path.name: set(run.read_json("data.json")["split"]["train"]) for run in runs}
    seen = {row.origin.id for row in rows for ids in trained_on.values() if row.origin.id in ids}
    notes = [
        ntr(
            "{count} of {total} rows is left out: {run} was trained on it.",
            "{count} of {total} rows are left out: {run} was trained on them.",
            count=n,
            total=len(rows),
            run=name,
        )
        for name, ids in trained_on.items()
        if (n := sum(row.origin.id in ids for row in rows))
    ]
    rows = [row for row in rows if row.origin.id not in seen]
    for run in runs:
        same, more = _same_texts(run, rows, shared.permissions)
        rows = [row for row in rows if row.origin.id not in same]
        notes += more
    if not rows:
        raise DataError(
            "No row is left that none of the runs was trained on.",
            ", ".join(map(str, trained_on)) or "eval_dataset",
            "Use other rows: eval_dataset=NAME.",
        )
    return rows, notes


def _same_texts(run: RunDir, rows: Sequence[Demonstration], permissions: Permissions) -> tuple[set[str], list[Text]]:
    """Ids of rows whose text the run was trained on, whatever their ids, and notes about them and near-duplicates."""

    config = settings_of(run, permissions)
    trained_on, name = set(run.read_json("data.json")["split"]["train"]), run.path.name
    try:
        examples = load_named(config, config.data.dataset).examples
    except SartorError as error:
        note = tr("Could not check whether {run} was trained on the same texts: {error}", run=name, error=error.what)
        return set(), [note]
    found = find_leaks([example for example in examples if example.origin.id in trained_on], rows)
    same = {leak.held_out for leak in found if leak.similarity == 1.0}
    near = {leak.held_out for leak in found} - same
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
    progress: Progress | None,
) -> Candidate:
    from sartor.evaluation.predict import PredictOptions, predict

    engine = load_engine(config)
    encoded = _encoded(engine.encoder, rows)
    losses = losses_by_row(engine.losses(encoded))
    options = PredictOptions(
        with_token_limit(shared, encoded).generation,
        metrics=shared.evaluation.metrics,
        losses={loss.id: loss.per_token for loss in losses},
    )
    done = predict(engine, rows, folder, options, progress=progress)
    return Candidate(
        _short(name),
        engine.fingerprint("tuned"),
        done.scores,
        tuple(loss.per_token for loss in losses),
        tuple(loss.label_tokens for loss in losses),
        cut=sum(row.stop_reason == "length" for row in done.rows),
    )


def _encoded(encoder: Encoder, rows: Sequence[Demonstration]) -> list[TokenSequence]:
    """The rows as this model's tokens. Raises: DataError for the first that it cannot encode."""
    found = encoder.encode_all(list(rows))
    if found.skipped:
        skipped = found.skipped[0]
        raise DataError(
            "Not every model can encode this row: {reason}", skipped.origin, skipped.fix, reason=skipped.reason
        )
    return [row for row in found.encoded if isinstance(row, TokenSequence)]


def _keys(endpoints: Sequence[Address], key_env: str | None) -> dict[str, str | None]:
    """The key of each endpoint: of several hosts, a key goes to those that it is bound to.

    Raises: ConfigError for a key that is not set, or is meant for none of them.
    """
    hosts = {host_of(endpoint.url) for endpoint in endpoints}
    found: dict[str, str | None] = {}
    for endpoint in endpoints:
        elsewhere = key_env and len(hosts) > 1 and host_of(endpoint.url) not in bound_hosts(key_env)
        found[endpoint.url] = None if elsewhere else read_key(endpoint.url, key_env, trusted=True)
    if key_env and found and not any(found.values()):
        raise ConfigError(
            "The addresses are on different hosts, and the key in {name} is bound to none of them.",
            "--key-env",
            "Say in the environment which host it is for: export {variable}=https://HOST/v1",
            name=key_env,
            variable=base_url_variable(key_env),
        )
    return found


def _ask_endpoint(
    address: str,
    rows: Sequence[Demonstration],
    folder: Path,
    shared: RunConfig,
    keys: Mapping[str, str | None],
    progress: Progress | None,
) -> Candidate:
    """Raises: EndpointError."""
    from sartor.evaluation.predict import write

    endpoint = Address.parse(address)
    limit = shared.generation.max_new_tokens
    client = ChatClient(endpoint, RequestOptions(max_tokens=limit), keys[endpoint.url])
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
    cut = sum(answer.stop_reason == "length" for answer in answers)
    return Candidate(_short(address), address, scoring.result(), cut=cut)


def _short(name: str) -> str:
    """A name for tables and folders: a checkpoint with its run, an endpoint with its model."""
    if is_endpoint(name):
        return re.sub(r"[^\w.-]+", "-", name.partition("#")[2] or name)
    path = Path(name)
    parts = path.resolve().parts[-2:] if path.name.startswith("checkpoint-") else (path.name,)
    return re.sub(r"[^\w.-]+", "-", "-".join(parts))


def _slug(names: Sequence[str]) -> str:
    return "-vs-".join(_short(name) for name in names)[:120]
