"""`train`: open the run folder, prepare the rows, plan, load the model and run the loop."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from sartor.api.environment import environment
from sartor.api.open_run import create_run, open_run, run_folder, scratch_run
from sartor.api.prepare_data import PreparedRows, data_json, make_encoder, prepare_rows
from sartor.api.sampling import make_sampler
from sartor.api.streaming import prepare_stream
from sartor.api.training_settings import training_settings
from sartor.base.config import RunConfig, yaml_file
from sartor.base.errors import ConfigError, RunError
from sartor.base.files import made_parents, sha256_file, system_errors
from sartor.base.i18n import tr
from sartor.base.locks import file_lock
from sartor.base.permissions import Permissions
from sartor.base.process import release_memory
from sartor.base.rundir import RunDir, State
from sartor.base.uploads import require_allowed, uploads_of
from sartor.model.tokenizer_match import check_tokenizer
from sartor.prompt.encode import Encoder
from sartor.training.stages import STAGES

if TYPE_CHECKING:
    from sartor.training.job import Callback, TrainingJob
    from sartor.training.plan import Plan
    from sartor.training.preflight import Estimate


@dataclass(frozen=True, slots=True)
class Run:
    """A run folder and its state."""

    dir: RunDir
    results: Mapping[str, Any] = field(default_factory=dict)
    already_finished: bool = False
    estimate: Mapping[str, Any] | None = None
    """What the pre-flight predicted, if it ran."""

    @property
    def state(self) -> State:
        return self.dir.state()

    @property
    def path(self) -> Path:
        return self.dir.path


# The keywords are the public API, one for each option of the command.
@system_errors()
def train(
    config: str | Path | RunConfig | None = None,
    overrides: Iterable[str] = (),
    *,
    fresh: bool = False,
    allow_changed: bool = False,
    permissions: Permissions | None = None,
    callbacks: Sequence[Callback] = (),
    plan_of: RunDir | None = None,
    preflight: bool = False,
    **settings: Any,
) -> Run:
    """Fine-tune with the settings of a YAML file, a RunConfig, or keywords. The same call again resumes the run.

    As on the command line, keywords and overrides without a file stand on `FIRST_TRAINING`; a file and a RunConfig on
    LLaMA-Factory's defaults.

    `plan_of` is a run whose plan is used instead of a new one (rerun). `preflight` first runs a new run's longest
    batch and one save, and reports to the callbacks (event `preflight`) what the training will take.

    Raises: ConfigError, DataError, PromptError, ModelError, RunError; Interrupted after a signal's checkpoint.

    Example:
        >>> run = sartor.train("sft.yaml", max_steps=2, output_dir="runs/short")
        >>> run.state
        'finished'
        >>> run.results["steps"]
        2
    """
    file = Path(config) if isinstance(config, str | Path) else None
    config = training_settings(config, overrides, fresh=fresh, **settings)
    source = yaml_file(file).read_text(encoding="utf-8-sig") if file else None
    if permissions is not None:
        config = config.allowing(permissions)
    if config.train.do_train is False:
        raise ConfigError("do_train is false.", tr("settings"), "Use `sartor predict` to predict, or set it to true.")
    require_allowed(uploads_of(config.train.report_to, None), config.permissions)
    run = run_folder(config)
    group = _join(config)
    with _alone(run) if group.first else nullcontext():
        opened = open_run(run, config, fresh=fresh, allow_changed=allow_changed) if group.first else None
        opened = group.broadcast(opened)
        if opened == "finished":
            return Run(run, run.read_json("all_results.json"), already_finished=True)
        request = _Request(run, config, source, opened == "resume", allow_changed, callbacks, plan_of, preflight)
        return _train(request, group)


@contextmanager
def _alone(run: RunDir) -> Iterator[None]:
    """No other process trains in the run's folder, and none is left behind that was made for nothing."""
    with made_parents(run.path), file_lock(run.path):
        yield


@runtime_checkable
class RowsCallback(Protocol):
    """A callback that also wants to know the prepared rows, before the first step."""

    def on_rows(self, rows: PreparedRows) -> None: ...


@dataclass(frozen=True, slots=True)
class _Group:
    """The processes that train together: whether this is the first, and how all of them get its value."""

    first: bool
    broadcast: Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class _Request:
    """What `train` was called for, after the run's folder was opened."""

    run: RunDir
    config: RunConfig
    source: str | None
    """The text of the settings file."""
    resume: bool
    allow_changed: bool
    callbacks: Sequence[Callback]
    plan_of: RunDir | None
    preflight: bool


def _train(request: _Request, group: _Group) -> Run:
    """Encode, plan, load, try the longest batch, train. The run has a folder once all but the last has succeeded."""
    run, config = request.run, request.config
    encoder = make_encoder(config)
    rows = rows_to_train(config, encoder)
    for callback in request.callbacks:
        if isinstance(callback, RowsCallback):
            callback.on_rows(rows)

    from sartor.training import loop
    from sartor.training.loss_check import checked_plan

    planned = group.broadcast(request.resume and run.plan.exists())
    plan = _plan(request, rows, planned)
    job = training_job(run, config, plan, encoder, rows)
    if not planned and not request.plan_of:
        plan = group.broadcast(checked_plan(job))
        job = replace(job, plan=plan)
    callbacks = [*request.callbacks, *_trackers(run, config)] if group.first else []
    job = replace(job, callbacks=callbacks)
    found = None
    if request.preflight and not planned and not request.plan_of and int(os.environ.get("WORLD_SIZE", "1")) == 1:
        from sartor.training.preflight import preflight

        with scratch_run(run) as scratch:
            found, plan = preflight(replace(job, run=scratch))
        _notify({"kind": "preflight", **found.to_json()}, callbacks)
    with closing(rows):
        job = replace(
            job,
            plan=plan,
            rows=rows.train_ids,
            create=partial(run.starting.unlink, missing_ok=True)
            if planned
            else partial(_create, request, rows, encoder, plan, found),
            fingerprint=fingerprint(rows, encoder, config),
            allow_changed=request.allow_changed,
            resume=group.broadcast(_resume_from(run, config, request.resume, callbacks) if group.first else None),
            sample=make_sampler(job.model, encoder, config),
            replay=_oom_divisors(request.plan_of),
        )
        results = loop.train(job)
        if rows.streamed_ledger and group.first:
            taken = rows.streamed_ledger(results["steps"] * plan.global_batch)
            run.write_json("data.json", data_json(taken, config, encoder, run))
    del job
    release_memory()
    return Run(run, results, estimate=found.to_json() if found else None)


def _plan(request: _Request, rows: PreparedRows, planned: bool) -> Plan:
    """The plan that the run has already, that of the run to repeat, or a new one."""
    from sartor.training.plan import Plan

    made = request.run if planned else request.plan_of
    return Plan.from_json(made.read_json("plan.json")) if made else plan_run(request.config, rows)


def _create(request: _Request, rows: PreparedRows, encoder: Encoder, plan: Plan, found: Estimate | None) -> None:
    """Make the run's folder with its settings, data, environment and plan."""
    run, config = request.run, request.config
    if not request.resume:
        create_run(run, config, request.source)
    run.write_json("data.json", data_json(rows, config, encoder, run))
    run.write_json("env.json", environment())
    run.write_json("plan.json", plan.to_json())
    run.starting.unlink(missing_ok=True)
    if found:
        run.event("preflight", **found.to_json())


def training_job(run: RunDir, config: RunConfig, plan: Plan, encoder: Encoder, rows: PreparedRows) -> TrainingJob:
    """The job of a plan, its model loaded. Raises: ModelError."""
    from sartor.training.job import TrainingJob

    model, reference = build_model(config, plan, encoder)
    return TrainingJob(
        run,
        config,
        plan,
        model,
        rows.sample or rows.train_ids,
        rows.held_out_ids,
        pad_id=pad_id(encoder.tokenizer),
        write_model=partial(save_model, model, encoder),
        reference=reference,
    )


def rows_to_train(config: RunConfig, encoder: Encoder) -> PreparedRows:
    """All rows encoded, or with `streaming` a stream of them. Raises: DataError, ConfigError."""
    if config.data.streaming:
        return prepare_stream(config, encoder)
    return prepare_rows(config, encoder)


def plan_run(config: RunConfig, rows: PreparedRows) -> Plan:
    """The plan for these rows on this machine. Raises: ConfigError; DataError when the stage learns from other rows."""
    from sartor.model.load import device_of, shape_of
    from sartor.training.plan import PlanInputs, make_plan

    STAGES.get(config.method.stage).check_rows((*(rows.sample or rows.train_ids), *rows.held_out_ids))
    shape = shape_of(config.model)
    facts = PlanInputs.from_rows(rows.sample or rows.train_ids, rows.held_out_ids, device_of(config.model), shape)
    if rows.sample:  # a longer row may come
        facts = replace(facts, longest=max(facts.longest, config.prompt.cutoff_len))
    return make_plan(config, facts)


def build_model(config: RunConfig, plan: Plan, encoder: Encoder) -> tuple[Any, Any]:
    """The model with what moves, and the reference model where one is named. Raises: ModelError."""
    import torch

    from sartor.model.load import adapt, load_model

    stage = STAGES.get(config.method.stage)
    settings = config.model.model_copy(update={"dtype": plan.dtype})
    trust_remote_code = config.permissions.trust_remote_code
    torch.manual_seed(config.train.seed)  # a reward head is drawn
    model = load_model(settings, trust_remote_code=trust_remote_code, head=stage.head)
    check_tokenizer(encoder.tokenizer, model)
    model.config.pad_token_id = pad_id(encoder.tokenizer)
    reference = None
    if config.method.ref_model:
        other = settings.model_copy(update={"model_name_or_path": config.method.ref_model})
        reference = load_model(other, trust_remote_code=trust_remote_code)
    model = adapt(
        model,
        config.method,
        pure_bf16=config.train.pure_bf16,
        seed=config.train.seed,
        adapters=config.model.adapter_name_or_path,
    )
    return model, reference


def _notify(event: Mapping[str, Any], callbacks: Sequence[Callback]) -> None:
    for callback in callbacks:
        callback.on_event(event)


def _oom_divisors(before: RunDir | None) -> dict[int, int]:
    """Step → divisor of the micro-batches, where the run that is repeated ran out of memory."""
    events = before.read_events() if before else ()
    return {event["step"]: event["micro_divisor"] for event in events if event["kind"] == "oom"}


def _join(config: RunConfig) -> _Group:
    """The group of processes that torchrun started, or this process alone."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return _Group(True, lambda value: value)
    from sartor.model.load import device_of
    from sartor.training.distributed import processes

    processes.start(device_of(config.model), bool(config.train.deepspeed))
    return _Group(processes.rank() == 0, processes.broadcast)


def _trackers(run: RunDir, config: RunConfig) -> list[Any]:
    from sartor.training.trackers import Trackers

    names = [name for name in config.train.report_to if name != "none"]
    return [Trackers(names, config.train.run_name or run.name, run.path, config.flat())] if names else []


def pad_id(tokenizer: Any) -> int:
    """Any id will do for padding: it is never attended to, and never learned."""
    return int(tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id or 0)


def save_model(model: Any, encoder: Encoder, folder: Path) -> None:
    """Weights, tokenizer with the template trained with, and stop tokens, as peft and transformers load them."""
    from transformers import GenerationConfig

    from sartor.model.load import save_weights

    save_weights(model, folder)
    tokenizer: Any = encoder.tokenizer
    before = tokenizer.chat_template
    tokenizer.chat_template = encoder.template.source
    try:
        tokenizer.save_pretrained(folder)
    finally:
        tokenizer.chat_template = before
    GenerationConfig(eos_token_id=list(encoder.stop_ids), pad_token_id=pad_id(tokenizer)).save_pretrained(folder)


def _resume_from(run: RunDir, config: RunConfig, resume: bool, callbacks: Sequence[Callback]) -> Path | None:
    """The checkpoint to go on from: the one named, else the newest that verifies; those passed over are named."""
    from sartor.training import checkpoint

    wanted = config.train.resume_from_checkpoint
    if isinstance(wanted, str):
        folder = Path(wanted)
        if problem := checkpoint.verify(folder):
            raise RunError(
                "The checkpoint cannot be used: {problem}.",
                wanted,
                "Remove resume_from_checkpoint to use the newest that can be.",
                problem=problem,
            )
        return folder
    if not resume:
        return None
    found, not_used = checkpoint.latest(run)
    for reason in not_used:
        message = tr("not used: {reason}", reason=reason)
        _notify(run.event("warning", text=message.render("en"), message=message.to_json()), callbacks)
    if found is None and run.state() != "new":
        message = tr("No checkpoint can be used: the training starts over at step 1.")
        _notify(run.event("warning", text=message.render("en"), message=message.to_json()), callbacks)
    return found


def fingerprint(rows: PreparedRows, encoder: Encoder, config: RunConfig) -> dict[str, str]:
    """What must be the same for a run to go on: name → SHA-256."""
    tokenizer = encoder.tokenizer.backend_tokenizer.to_str()
    model = Path(_model_path(config))
    folders = [model, *map(Path, config.model.adapter_name_or_path)]
    weights = [file for folder in folders if folder.is_dir() for file in sorted(folder.glob("*.safetensors"))]
    return {
        "data": rows.digest,
        "template": hashlib.sha256(encoder.template.source.encode()).hexdigest(),
        "tokenizer": hashlib.sha256(tokenizer.encode()).hexdigest(),
        "model": hashlib.sha256("".join(sha256_file(w) for w in weights).encode()).hexdigest(),
    }


def _model_path(config: RunConfig) -> str:
    from sartor.model.locate import resolve_model

    return str(resolve_model(config.model.model_name_or_path))
