"""Checkpoints that are complete or absent: written under a temporary name, hashed, fsynced, renamed; never pickled."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from sartor.base.errors import ModelError, RunError
from sartor.base.files import disk_error, fsync_file, fsync_folder, sha256_file
from sartor.base.i18n import Text, tr
from sartor.base.rundir import RunDir
from sartor.model.lora_offset import TRAINED_MATRICES_FILE
from sartor.training.distributed import processes, sharded_checkpoint

MANIFEST = "sartor_manifest.json"
MAX_JSON_BYTES = 64 << 20
STATE, OPTIMIZER, RANDOM = "sartor_state.json", "optimizer.safetensors", "random.safetensors"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a training is; with weights, optimizer and random states it is the complete state."""

    step: int = 0
    tokens: int = 0
    label_tokens: int = 0
    loss_sum: float = 0.0
    """Sum of the logged losses of all steps."""
    seconds: float = 0.0
    best_loss: float | None = None
    best_step: int | None = None
    evals_without_improvement: int = 0
    skipped_steps: int = 0
    micro_divisor: int = 1
    """Micro-batches are 1/micro_divisor as large as planned, after running out of memory."""


def save(
    run: RunDir,
    progress: Progress,
    *,
    write_model: Callable[[Path], None],
    optimizer: Mapping[str, torch.Tensor] | None,
    scheduler_state: Mapping[str, Any],
    fingerprint: Mapping[str, str],
) -> Path:
    """Write `checkpoint-<step>` and return its path. `write_model(folder)` puts weights and tokenizer there;
    `optimizer` is what `flatten_optimizer` gives, or None for a checkpoint that cannot be resumed from.

    Raises: RunError when the disk is full; earlier checkpoints are left as they are.
    """
    target, tmp = _places(run, progress)
    shutil.rmtree(tmp, ignore_errors=True)
    try:
        tmp.mkdir(parents=True)
        write_model(tmp)
        if optimizer is not None:
            save_file(dict(optimizer), tmp / OPTIMIZER)
            save_file(random_states(), tmp / RANDOM)
        _write_state(tmp, progress, scheduler_state, fingerprint, optimizer is not None)
        _finish(tmp, target, {})
    except (OSError, SafetensorError) as error:
        shutil.rmtree(tmp, ignore_errors=True)
        cause = error if isinstance(error, OSError) else OSError(0, str(error))
        raise disk_error(cause, target) from error
    return target


def save_sharded(
    run: RunDir,
    progress: Progress,
    *,
    model: nn.Module,
    optimizer: torch.optim.Optimizer | None,
    scheduler_state: Mapping[str, Any],
    fingerprint: Mapping[str, str],
) -> Path:
    """As `save`, but called by every process: each writes its own shards (`distributed/sharded_checkpoint`), the first
    one the rest.

    Raises: RunError in every process when the disk is full for one of them.
    """
    target, tmp = _places(run, progress)
    part: dict[str, Any] | None = None
    failure: OSError | None = None
    if processes.rank() == 0:
        shutil.rmtree(tmp, ignore_errors=True)
        tmp.mkdir(parents=True, exist_ok=True)
    processes.barrier()
    try:
        states = None if optimizer is None else optimizer_states(optimizer)
        part = sharded_checkpoint.write_part(tmp, model, states, random_states())
    except (OSError, SafetensorError) as error:
        failure = error if isinstance(error, OSError) else OSError(0, str(error))
    outcomes = processes.all_gather((part, failure and (failure.errno, str(failure))))
    first_failure = next((failure for _, failure in outcomes if failure), None)
    try:
        if first_failure:
            raise OSError(*first_failure)
        if processes.rank() == 0:
            files = sharded_checkpoint.write_index(tmp, [part for part, _ in outcomes])
            _write_state(tmp, progress, scheduler_state, fingerprint, optimizer is not None)
            _finish(tmp, target, files)
    except OSError as error:
        if processes.rank() == 0:
            shutil.rmtree(tmp, ignore_errors=True)
        raise disk_error(error, target) from error
    return target


def _places(run: RunDir, progress: Progress) -> tuple[Path, Path]:
    return run.path / f"checkpoint-{progress.step}", run.path / f".checkpoint-{progress.step}.part"


def _write_state(
    tmp: Path, progress: Progress, scheduler: Mapping[str, Any], fingerprint: Mapping[str, str], resumable: bool
) -> None:
    state = {
        "progress": {name: getattr(progress, name) for name in progress.__slots__},
        "scheduler": dict(scheduler),
        "fingerprint": dict(fingerprint),
        "resumable": resumable,
    }
    (tmp / STATE).write_text(json.dumps(state, indent=1), encoding="utf-8")


def _finish(tmp: Path, target: Path, known: Mapping[str, Any]) -> None:
    """Write the manifest, then rename the folder, which makes it a checkpoint."""
    _write_manifest(tmp, known)
    if target.exists():
        shutil.rmtree(target)
    os.replace(tmp, target)
    fsync_folder(target.parent)


def _write_manifest(folder: Path, known: Mapping[str, Any] | None = None) -> None:
    """Hash and fsync every file except those already `known`; the manifest is written last."""
    files = dict(known or {})
    for file in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = file.relative_to(folder).as_posix()
        if name in files:
            continue
        fsync_file(file)
        files[name] = {"bytes": file.stat().st_size, "sha256": sha256_file(file)}
    manifest = folder / MANIFEST
    manifest.write_text(json.dumps({"files": files}, indent=1), encoding="utf-8")
    fsync_file(manifest)
    fsync_folder(folder)


def verify(folder: Path) -> Text | None:
    """What is wrong with a checkpoint, or None when every file is present with its size and SHA-256, and its state is
    one of ours."""
    manifest = folder / MANIFEST
    try:
        if manifest.is_symlink() or (manifest.exists() and not manifest.is_file()):
            return tr("its manifest is not a regular file")
        files = _read_json(manifest)["files"]
        for name, expected in files.items():
            file = folder / name
            outside = not file.resolve().is_relative_to(folder.resolve())
            if outside or Path(name).is_absolute() or ".." in Path(name).parts or file.is_symlink():
                return tr("{file} leads out of the folder", file=name)
            if not file.is_file():
                return tr("{file} is missing", file=name)
            if file.stat().st_size != expected["bytes"] or sha256_file(file) != expected["sha256"]:
                return tr("{file} is damaged", file=name)
    except FileNotFoundError:
        return tr("it has no manifest")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, RuntimeError) as error:
        return tr("its manifest is damaged ({reason})", reason=error)
    held = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_symlink() or not p.is_dir()}
    if extra := held - set(files) - {MANIFEST}:
        return tr("it has unknown files ({files})", files=", ".join(sorted(extra)))
    return _state_problem(folder)


def _state_problem(folder: Path) -> Text | None:
    """What is wrong with the JSON part of a checkpoint whose files are as its manifest says."""
    try:
        state = _read_json(folder / STATE)
        Progress(**state["progress"])
        whole = all(isinstance(value, int | float | None) for value in state["progress"].values())
        whole = whole and isinstance(state["progress"]["step"], int) and isinstance(state["resumable"], bool)
        whole = whole and all(isinstance(state[name], dict) for name in ("scheduler", "fingerprint"))
    except FileNotFoundError:
        return tr("{file} is missing", file=STATE)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        whole = False
    return None if whole else tr("{file} is damaged", file=STATE)


def _read_json(file: Path) -> Any:
    if file.stat().st_size > MAX_JSON_BYTES:
        raise ValueError(f"{file.name} is larger than {MAX_JSON_BYTES >> 20} MiB")
    return json.loads(file.read_text(encoding="utf-8"))


def latest(run: RunDir) -> tuple[Path | None, list[Text]]:
    """The newest checkpoint that verifies and can be resumed from, and why each newer one is not used."""
    not_used: list[Text] = []
    for folder in run.checkpoints():
        problem = verify(folder)
        if problem is None and not read_state(folder)["resumable"]:
            problem = tr("it has no optimizer state (save_only_model)")
        if problem is None:
            return folder, not_used
        not_used.append(tr("{checkpoint}: {problem}", checkpoint=folder.name, problem=problem))
    return None, not_used


def check_fingerprint(folder: Path, fingerprint: Mapping[str, str]) -> None:
    """Raises: RunError when a checkpoint was made with different data, template, tokenizer or model."""
    saved = read_state(folder)["fingerprint"]
    different = [name for name, value in fingerprint.items() if saved.get(name, value) != value]
    if different:
        raise RunError(
            "The checkpoint was made with a different {names}.",
            str(folder),
            "Restore it, or add --allow-changed, or --fresh for a new run.",
            names=", ".join(different),
        )


def read_state(folder: Path) -> dict[str, Any]:
    """The JSON part of a verified checkpoint. Raises: RunError when it is not one of ours."""
    try:
        state: dict[str, Any] = json.loads((folder / STATE).read_text(encoding="utf-8"))
        return state
    except (OSError, ValueError) as error:
        raise RunError("Not a checkpoint: {reason}", str(folder), "Give a checkpoint folder.", reason=error) from error


def load_optimizer(folder: Path, optimizer: torch.optim.Optimizer) -> None:
    """Put a checkpoint's optimizer and random states back, bit by bit. Raises: ModelError when they do not fit."""
    try:
        if sharded_checkpoint.is_sharded(folder):
            _put_states(optimizer, sharded_checkpoint.optimizer_states(folder, _parameters(optimizer)))
            restore_random(sharded_checkpoint.Shards(folder).random(processes.rank()))
            return
        tensors = load_file(folder / OPTIMIZER)
        _restore_optimizer(optimizer, tensors)
        restore_random(load_file(folder / RANDOM))
    except (SafetensorError, OSError, KeyError, ValueError, RuntimeError) as error:
        raise ModelError(
            "The optimizer state does not fit: {reason}", str(folder), "Use another checkpoint.", reason=error
        ) from error


def load_trained_weights(folder: Path, model: nn.Module) -> None:
    """Put a checkpoint's trained weights into a model of the same shape (an adapter's, or all).

    Raises: ModelError when names or shapes differ, or a file is not valid safetensors.
    """
    if sharded_checkpoint.is_sharded(folder):
        sharded_checkpoint.load_weights(folder, model)
        return
    try:
        if (folder / "adapter_model.safetensors").exists():
            raw = folder / TRAINED_MATRICES_FILE  # what was trained, where adapter_model.safetensors holds more
            file = raw if raw.exists() else folder / "adapter_model.safetensors"
            from peft import set_peft_model_state_dict

            outcome = set_peft_model_state_dict(model, load_file(file))
            lacking = [name for name in outcome.missing_keys if ".lora_" in name and ".default" in name]
            unexpected = [*outcome.unexpected_keys, *lacking]
        else:
            state: dict[str, torch.Tensor] = {}
            for file in sorted(folder.glob("model*.safetensors")):
                state |= load_file(file)
            outcome = model.load_state_dict(state, strict=False)
            tied = set(getattr(model, "_tied_weights_keys", None) or ())
            unexpected = [*outcome.unexpected_keys, *(set(outcome.missing_keys) - tied)]
    except (SafetensorError, RuntimeError, OSError) as error:
        raise ModelError(
            "Could not read the weights: {reason}", str(folder), "Use another checkpoint.", reason=error
        ) from error
    if unexpected:
        raise ModelError(
            "The weights do not fit the model: {names}",
            str(folder),
            "Use the model that the run was trained from.",
            names=", ".join(unexpected[:3]),
        )


def remove_partial(run: RunDir) -> None:
    """Remove what a killed process left half-written or half-removed."""
    for pattern in (".checkpoint-*.part", ".checkpoint-*.gone", ".final.part", ".preflight.part"):
        for folder in run.path.glob(pattern):
            shutil.rmtree(folder, ignore_errors=True)


def write_final(run: RunDir, write_model: Callable[[Path], None]) -> None:
    """The run's final weights: written under a temporary name, then renamed file by file, so that none is ever partial.

    Raises: RunError when the disk is full.
    """
    tmp = run / ".final.part"
    shutil.rmtree(tmp, ignore_errors=True)
    try:
        tmp.mkdir(parents=True)
        write_model(tmp)
        for file in sorted(p for p in tmp.rglob("*") if p.is_file()):
            fsync_file(file)
            target = run.path / file.relative_to(tmp)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(file, target)
        fsync_folder(run.path)
    except (OSError, SafetensorError) as error:
        cause = error if isinstance(error, OSError) else OSError(0, str(error))
        raise disk_error(cause, run.path) from error
    finally:
        shutil.rmtree(tmp, ignore_errors=True)


def prune(run: RunDir, keep: int | None, protected: int | None) -> list[Path]:
    """Remove all but the newest `keep` checkpoints, but never that of step `protected`; returns those removed."""
    if keep is None:
        return []
    gone = [p for p in run.checkpoints()[keep:] if p.name != f"checkpoint-{protected}"]
    for folder in gone:
        tmp = folder.with_name(f".{folder.name}.gone")
        os.replace(folder, tmp)
        shutil.rmtree(tmp)
    return gone


def flatten_optimizer(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """`<parameter number>.<name>` → tensor; numbers become one-element tensors."""
    flat = {}
    for number, values in optimizer_states(optimizer).items():
        for name, value in values.items():
            tensor = value if isinstance(value, torch.Tensor) else torch.tensor(value)
            flat[f"{number}.{name}"] = processes.full_tensor(tensor.detach()).contiguous().cpu().clone()
    return flat


def optimizer_states(optimizer: torch.optim.Optimizer) -> dict[int, dict[str, Any]]:
    """Parameter number → its states, without the wrapping that bitsandbytes' own `state_dict` adds."""
    states: dict[int, dict[str, Any]] = torch.optim.Optimizer.state_dict(optimizer)["state"]
    return states


def _restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, torch.Tensor]) -> None:
    state: dict[int, dict[str, Any]] = {}
    parameters = _parameters(optimizer)
    for key, tensor in tensors.items():
        number, _, name = key.partition(".")
        state.setdefault(int(number), {})[name] = processes.shard_like(tensor, parameters[int(number)])
    _put_states(optimizer, state)


def _parameters(optimizer: torch.optim.Optimizer) -> list[Any]:
    return [p for group in optimizer.param_groups for p in group["params"]]


def _put_states(optimizer: torch.optim.Optimizer, state: Mapping[int, Mapping[str, Any]]) -> None:
    """Integers come back as Python ints: bitsandbytes counts its steps in one."""
    state = {
        number: {name: int(v) if v.ndim == 0 and v.dtype == torch.int64 else v for name, v in values.items()}
        for number, values in state.items()
    }
    optimizer.load_state_dict({**optimizer.state_dict(), "state": {k: dict(v) for k, v in state.items()}})


def random_states() -> dict[str, torch.Tensor]:
    """torch's random states: the CPU's and each GPU's."""
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states |= {f"cuda.{i}": state for i, state in enumerate(torch.cuda.get_rng_state_all())}
    return states


def restore_random(states: Mapping[str, torch.Tensor]) -> None:
    """Put the states of `random_states` back."""
    torch.set_rng_state(states["cpu"])
    for key, state in states.items():
        if key.startswith("cuda."):
            torch.cuda.set_rng_state(state, int(key.partition(".")[2]))
