"""Checkpoints that are whole or absent: written aside, hashed, fsynced, renamed; no pickle is written or read."""

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

from sartor.base.errors import ModelError, RunError
from sartor.base.files import disk_error, fsync_file, fsync_folder, sha256_file
from sartor.base.rundir import RunDir
from sartor.model.lora_offset import TRAINED_MATRICES_FILE
from sartor.training.distributed import processes, sharded_checkpoint

MANIFEST = "sartor_manifest.json"
STATE, OPTIMIZER, RANDOM = "sartor_state.json", "optimizer.safetensors", "random.safetensors"


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a training stands; with the weights, the optimizer and the random states it is all there is."""

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
    """By how much micro-batches were cut after running out of memory."""


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
    `optimizer` is what `flat_optimizer` gives, or None for a checkpoint to look at only.

    Raises: RunError when the disk is full; earlier checkpoints are untouched then.
    """
    target, aside = _places(run, progress)
    shutil.rmtree(aside, ignore_errors=True)
    try:
        aside.mkdir(parents=True)
        write_model(aside)
        if optimizer is not None:
            save_file(dict(optimizer), aside / OPTIMIZER)
            save_file(random_states(), aside / RANDOM)
        _write_state(aside, progress, scheduler_state, fingerprint, optimizer is not None)
        _finish(aside, target, {})
    except (OSError, SafetensorError) as error:
        shutil.rmtree(aside, ignore_errors=True)
        cause = error if isinstance(error, OSError) else OSError(0, str(error))
        raise disk_error(cause, target) from error
    return target


def save_sharded(
    run: RunDir,
    progress: Progress,
    *,
    model: Any,
    optimizer: torch.optim.Optimizer | None,
    scheduler_state: Mapping[str, Any],
    fingerprint: Mapping[str, str],
) -> Path:
    """As `save`, called by every process: each writes its own shards (`distributed/sharded_checkpoint`), the first the
    rest.

    Raises: RunError in every process when the disk is full for one of them.
    """
    target, aside = _places(run, progress)
    part: dict[str, Any] | None = None
    wrong: OSError | None = None
    if processes.rank() == 0:
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True, exist_ok=True)
    processes.barrier()
    try:
        states = None if optimizer is None else optimizer_states(optimizer)
        part = sharded_checkpoint.write_part(aside, model, states, random_states())
    except (OSError, SafetensorError) as error:
        wrong = error if isinstance(error, OSError) else OSError(0, str(error))
    told = processes.all_gather((part, wrong and (wrong.errno, str(wrong))))
    failed = next((said for _, said in told if said), None)
    try:
        if failed:
            raise OSError(*failed)
        if processes.rank() == 0:
            files = sharded_checkpoint.write_index(aside, [one for one, _ in told])
            _write_state(aside, progress, scheduler_state, fingerprint, optimizer is not None)
            _finish(aside, target, files)
    except OSError as error:
        if processes.rank() == 0:
            shutil.rmtree(aside, ignore_errors=True)
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
    """The manifest, and the name that makes it a checkpoint."""
    _write_manifest(tmp, known)
    if target.exists():
        shutil.rmtree(target)
    os.replace(tmp, target)
    fsync_folder(target.parent)


def _write_manifest(folder: Path, known: Mapping[str, Any] | None = None) -> None:
    """Hash and fsync every file but those already `known`; the manifest is the last file written."""
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


def verify(folder: Path) -> str | None:
    """What is wrong with a checkpoint, or None when every file is there with its size and SHA-256."""
    try:
        files = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"]
        for name, expected in files.items():
            file = folder / name
            if Path(name).is_absolute() or ".." in Path(name).parts or file.is_symlink():
                return f"{name} leads out of the folder"
            if not file.is_file():
                return f"{name} is missing"
            if file.stat().st_size != expected["bytes"] or sha256_file(file) != expected["sha256"]:
                return f"{name} is damaged"
    except FileNotFoundError:
        return "it has no manifest"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"its manifest is damaged ({error})"
    extra = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if not p.is_dir()} - set(files) - {MANIFEST}
    return f"it holds foreign files ({', '.join(sorted(extra))})" if extra else None


def latest(run: RunDir) -> tuple[Path | None, list[str]]:
    """The newest checkpoint that verifies and can be resumed from, and why each newer one is not used."""
    passed_over: list[str] = []
    for folder in run.checkpoints():
        wrong = verify(folder)
        if wrong is None and not read_state(folder)["resumable"]:
            wrong = "it holds no optimizer state (save_only_model)"
        if wrong is None:
            return folder, passed_over
        passed_over.append(f"{folder.name}: {wrong}")
    return None, passed_over


def read_state(folder: Path) -> dict[str, Any]:
    """The JSON part of a verified checkpoint. Raises: RunError when it is not one of ours."""
    try:
        state: dict[str, Any] = json.loads((folder / STATE).read_text(encoding="utf-8"))
        return state
    except (OSError, ValueError) as error:
        raise RunError(f"This is no checkpoint of Sartor: {error}", str(folder), "Name a checkpoint folder.") from error


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
            f"The optimizer state does not fit: {error}", str(folder), "Use another checkpoint."
        ) from error


def load_trained_weights(folder: Path, model: Any) -> None:
    """Put a checkpoint's trained weights into a model of the same shape (an adapter's, or all).

    Raises: ModelError when names or shapes differ, or a file is none of safetensors.
    """
    if sharded_checkpoint.is_sharded(folder):
        sharded_checkpoint.load_weights(folder, model)
        return
    try:
        if (folder / "adapter_model.safetensors").exists():
            from peft import set_peft_model_state_dict

            raw = folder / TRAINED_MATRICES_FILE  # what was trained, where adapter_model.safetensors holds more
            file = raw if raw.exists() else folder / "adapter_model.safetensors"
            outcome = set_peft_model_state_dict(model, load_file(file))
            unexpected = list(outcome.unexpected_keys)
        else:
            state: dict[str, torch.Tensor] = {}
            for file in sorted(folder.glob("model*.safetensors")):
                state |= load_file(file)
            outcome = model.load_state_dict(state, strict=False)
            tied = set(getattr(model, "_tied_weights_keys", None) or ())
            unexpected = [*outcome.unexpected_keys, *(set(outcome.missing_keys) - tied)]
    except (SafetensorError, RuntimeError, OSError) as error:
        raise ModelError(f"The weights cannot be read: {error}", str(folder), "Use another checkpoint.") from error
    if unexpected:
        raise ModelError(f"Weights do not fit the model: {unexpected[:3]}", str(folder), "Use the run's own model.")


def remove_partial(run: RunDir) -> None:
    """Remove what a killed process left half-written or half-removed; nothing that is whole."""
    for pattern in (".checkpoint-*.part", ".checkpoint-*.gone", ".final.part", ".preflight.part"):
        for folder in run.path.glob(pattern):
            shutil.rmtree(folder, ignore_errors=True)


def write_final(run: RunDir, write_model: Callable[[Path], None]) -> None:
    """The run's own weights: written aside, then renamed file by file, so that none is ever half there.

    Raises: RunError when the disk is full.
    """
    aside = run / ".final.part"
    shutil.rmtree(aside, ignore_errors=True)
    try:
        aside.mkdir(parents=True)
        write_model(aside)
        for file in sorted(p for p in aside.rglob("*") if p.is_file()):
            fsync_file(file)
            target = run.path / file.relative_to(aside)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(file, target)
        fsync_folder(run.path)
    except (OSError, SafetensorError) as error:
        cause = error if isinstance(error, OSError) else OSError(0, str(error))
        raise disk_error(cause, run.path) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def prune(run: RunDir, keep: int | None, protected: int | None) -> list[Path]:
    """Remove all but the newest `keep` checkpoints, never the one of step `protected`; returns those removed."""
    if keep is None:
        return []
    gone = [p for p in run.checkpoints()[keep:] if p.name != f"checkpoint-{protected}"]
    for folder in gone:
        aside = folder.with_name(f".{folder.name}.gone")
        os.replace(folder, aside)
        shutil.rmtree(aside)
    return gone


def flatten_optimizer(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """`<parameter number>.<name>` → tensor; numbers as one-element tensors."""
    flat = {}
    for number, values in optimizer_states(optimizer).items():
        for name, value in values.items():
            tensor = value if isinstance(value, torch.Tensor) else torch.tensor(value)
            flat[f"{number}.{name}"] = processes.full_tensor(tensor.detach()).contiguous().cpu().clone()
    return flat


def optimizer_states(optimizer: torch.optim.Optimizer) -> dict[int, dict[str, Any]]:
    """Parameter number → its states; not as bitsandbytes wraps them."""
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
    """Whole numbers come back as such: bitsandbytes counts its steps in an int."""
    state = {
        number: {name: int(v) if v.ndim == 0 and v.dtype == torch.int64 else v for name, v in values.items()}
        for number, values in state.items()
    }
    optimizer.load_state_dict({**optimizer.state_dict(), "state": {k: dict(v) for k, v in state.items()}})


def random_states() -> dict[str, torch.Tensor]:
    """All states of torch's random numbers: the CPU's and each GPU's."""
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
