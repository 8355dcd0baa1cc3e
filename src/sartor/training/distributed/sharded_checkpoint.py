"""Sharded weights and optimizer states as files: each process writes its own part, any number of processes reads them.

Plain safetensors and one JSON index, because loading accelerate's or torch's distributed checkpoints unpickles.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

from sartor.base.errors import ModelError
from sartor.base.files import fsync_file, sha256_file
from sartor.training.distributed import processes

INDEX = "sartor_shards.json"
FIX = "Use another checkpoint."
WEIGHT, STATE, RANDOM = "weight/", "optimizer/", "random/"
Part: TypeAlias = dict[str, Any]
"""One process's share: {"files": {name: {bytes, sha256}}, "tensors": {key: {shape, offset, size, file}}}."""


def write_part(
    folder: Path, model: nn.Module, states: Mapping[int, Mapping[str, Any]] | None, random: Mapping[str, Tensor]
) -> Part:
    """Write this process's file and return what is in it. Every process must call (replicated states are gathered).

    `states` are those of the optimizer; None leaves them out. Raises: OSError, SafetensorError when the disk is full.
    """
    rank = processes.rank()
    name = f"shard-{rank:05d}-of-{processes.world_size():05d}.safetensors"
    tensors: dict[str, Tensor] = {}
    written: dict[str, Any] = {}
    for key, value in _named(model, states):
        local, offset = _local_shard(value)
        if local is None or (local.numel() == 0 and value.numel()):
            continue
        tensors[key] = local.detach().contiguous().cpu().clone()
        written[key] = {"shape": list(value.shape), "offset": offset, "size": list(local.shape), "file": name}
    if states is not None:
        tensors |= {f"{RANDOM}{key}": state for key, state in random.items()}
    save_file(tensors, folder / name)
    fsync_file(folder / name)
    size, digest = (folder / name).stat().st_size, sha256_file(folder / name)
    return {"files": {name: {"bytes": size, "sha256": digest}}, "tensors": written}


def write_index(folder: Path, parts: Sequence[Part]) -> dict[str, Any]:
    """Join all processes' parts into the index; returns their files as the manifest lists them."""
    tensors: dict[str, Any] = {}
    for part in parts:
        for key, piece in part["tensors"].items():
            known = tensors.setdefault(key, {"shape": piece["shape"], "pieces": []})
            known["pieces"].append({name: piece[name] for name in ("file", "offset", "size")})
    content = {"processes": len(parts), "tensors": tensors}
    (folder / INDEX).write_text(json.dumps(content, indent=1), encoding="utf-8")
    return {name: entry for part in parts for name, entry in part["files"].items()}


def is_sharded(folder: Path) -> bool:
    return (folder / INDEX).is_file()


class Shards:
    """A sharded checkpoint, read piece by piece: of each tensor only what this process needs."""

    def __init__(self, folder: Path) -> None:
        """Raises: ModelError when the index is damaged or leads out of the folder."""
        self.folder = folder
        try:
            content = json.loads((folder / INDEX).read_text(encoding="utf-8"))
            self.processes, self._tensors = int(content["processes"]), content["tensors"]
            names = {piece["file"] for known in self._tensors.values() for piece in known["pieces"]}
            for known in self._tensors.values():
                _check(known)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ModelError("The index is damaged: {reason}.", str(folder / INDEX), FIX, reason=repr(error)) from error
        for name in names:
            if Path(name).name != name or not (folder / name).is_file() or (folder / name).is_symlink():
                raise ModelError(
                    "The index names {file!r}, which is not a file of this folder.", str(folder / INDEX), FIX, file=name
                )

    def keys(self, kind: str) -> list[str]:
        """The names of one kind, without its prefix."""
        return [key.removeprefix(kind) for key in self._tensors if key.startswith(kind)]

    def shape(self, key: str) -> tuple[int, ...]:
        return tuple(self._tensors[key]["shape"])

    def fill(self, key: str, target: Tensor) -> None:
        """Fill a full or sharded tensor with its part of `key`. Raises: ModelError when shapes do not fit."""
        if tuple(target.shape) != self.shape(key):
            raise ModelError(
                "{name} has the shape {shape}, and the model's has {expected}.",
                str(self.folder),
                "Use the model that the run was trained from.",
                name=key,
                shape=list(self.shape(key)),
                expected=list(target.shape),
            )
        local, offset = _local_shard(target, everywhere=True)
        assert local is not None
        for piece in self._tensors[key]["pieces"]:
            overlap = [
                (max(own_start, start), min(own_start + own_size, start + size))
                for own_start, own_size, start, size in zip(
                    offset, local.shape, piece["offset"], piece["size"], strict=True
                )
            ]
            if any(start >= stop for start, stop in overlap):
                continue
            source = tuple(slice(a - start, b - start) for (a, b), start in zip(overlap, piece["offset"], strict=True))
            destination = tuple(slice(a - start, b - start) for (a, b), start in zip(overlap, offset, strict=True))
            local[destination].copy_(self._read(piece["file"], key, source))

    def get(self, key: str) -> Tensor:
        """The full tensor, in the type it was saved in."""
        first = self._tensors[key]["pieces"][0]
        piece = self._read(first["file"], key, tuple(slice(0, size) for size in first["size"]))
        full = piece.new_empty(self.shape(key))
        self.fill(key, full)
        return full

    def random(self, rank: int) -> dict[str, Tensor]:
        """The random states of that process, or of another one where the checkpoint has fewer."""
        number = rank % self.processes
        name = f"shard-{number:05d}-of-{self.processes:05d}.safetensors"
        with safe_open(self.folder / name, framework="pt") as file:
            keys = [key for key in file.keys() if key.startswith(RANDOM)]  # noqa: SIM118  (no mapping)
            return {key.removeprefix(RANDOM): file.get_tensor(key) for key in keys}

    def _read(self, name: str, key: str, part: tuple[slice, ...]) -> Tensor:
        try:
            with safe_open(self.folder / name, framework="pt") as file:
                if not part:
                    full: Tensor = file.get_tensor(key)
                    return full
                piece: Tensor = file.get_slice(key)[part]
                return piece
        except (SafetensorError, OSError) as error:
            raise ModelError(
                "Could not read {file}: {reason}.", str(self.folder), FIX, file=name, reason=error
            ) from error


def load_weights(folder: Path, model: nn.Module) -> None:
    """Put a sharded checkpoint's trained weights into a model, sharded or not. Raises: ModelError."""
    shards, trained = Shards(folder), {n: p for n, p in model.named_parameters() if p.requires_grad}
    if set(trained) != set(shards.keys(WEIGHT)):
        raise ModelError(
            "The weights do not fit the model: {names}",
            str(folder),
            "Use the model that the run was trained from.",
            names=", ".join(sorted(set(trained) ^ set(shards.keys(WEIGHT)))[:3]),
        )
    for name, parameter in trained.items():
        shards.fill(WEIGHT + name, parameter.data)


def optimizer_states(folder: Path, parameters: Sequence[Any]) -> dict[int, dict[str, Tensor]]:
    """Each parameter's states, sharded like the parameter. Raises: ModelError when they do not fit."""
    shards = Shards(folder)
    states: dict[int, dict[str, Tensor]] = {}
    for key in shards.keys(STATE):
        number, _, name = key.partition(".")
        parameter = parameters[int(number)]
        if hasattr(parameter, "device_mesh") and shards.shape(STATE + key) == tuple(parameter.shape):
            value = torch.zeros_like(parameter.detach())
            shards.fill(STATE + key, value)
        else:
            value = shards.get(STATE + key)
        states.setdefault(int(number), {})[name] = value
    return states


def _named(model: nn.Module, states: Mapping[int, Mapping[str, Any]] | None) -> Iterator[tuple[str, Any]]:
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            yield WEIGHT + name, parameter
    for number, values in (states or {}).items():
        for name, value in values.items():
            yield f"{STATE}{number}.{name}", value if isinstance(value, Tensor) else torch.tensor(value)


def _local_shard(value: Any, everywhere: bool = False) -> tuple[Tensor | None, list[int]]:
    """(this process's part, its offset); a replicated tensor belongs to the first process, or to all (`everywhere`)."""
    if hasattr(value, "device_mesh") and all(place.is_shard() for place in value.placements):
        _, offset = compute_local_shape_and_global_offset(value.shape, value.device_mesh, value.placements)
        local: Tensor = value.detach().to_local()
        return local, list(offset)
    full = processes.full_tensor(value)
    return (full if everywhere or processes.rank() == 0 else None), [0] * full.ndim


def _check(known: Mapping[str, Any]) -> None:
    """Raises: ValueError when the pieces do not add up to the tensor."""
    shape = [int(n) for n in known["shape"]]
    held = 0
    for piece in known["pieces"]:
        offset, size = [int(n) for n in piece["offset"]], [int(n) for n in piece["size"]]
        ends = [a + b for a, b in zip(offset, size, strict=True)]
        if len(offset) != len(shape) or min([0, *offset, *size]) < 0 or any(a > b for a, b in zip(ends, shape)):
            raise ValueError(f"a piece of {shape} at {offset} has the size {size}")
        held += math.prod(size)
    if held != math.prod(shape):
        raise ValueError(f"the pieces of {shape} have {held} elements")
