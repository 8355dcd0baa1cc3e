"""Sharded weights and optimizer states as files: each process writes its own part, any number of processes reads them.

Plain safetensors and one JSON index; neither accelerate's nor torch's distributed checkpoints, which unpickle.
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
from torch import Tensor

from sartor.base.errors import ModelError
from sartor.base.files import fsync_file, sha256_file
from sartor.training.distributed import processes

INDEX = "sartor_shards.json"
FIX = "Use another checkpoint."
WEIGHT, STATE, RANDOM = "weight/", "optimizer/", "random/"
Part: TypeAlias = dict[str, Any]
"""One process's share: {"files": {name: {bytes, sha256}}, "tensors": {key: {shape, offset, size, file}}}."""


def write_part(
    folder: Path, model: Any, states: Mapping[int, Mapping[str, Any]] | None, random: Mapping[str, Tensor]
) -> Part:
    """Write this process's file and return what it holds. Every process must call (replicated states are collected).

    `states` are those of the optimizer; None leaves them out. Raises: OSError, SafetensorError when the disk is full.
    """
    rank = processes.rank()
    name = f"shard-{rank:05d}-of-{processes.world_size():05d}.safetensors"
    tensors: dict[str, Tensor] = {}
    told: dict[str, Any] = {}
    for key, value in _named(model, states):
        local, offset = _local_shard(value)
        if local is None or (local.numel() == 0 and value.numel()):
            continue
        tensors[key] = local.detach().contiguous().cpu().clone()
        told[key] = {"shape": list(value.shape), "offset": offset, "size": list(local.shape), "file": name}
    if states is not None:
        tensors |= {f"{RANDOM}{key}": state for key, state in random.items()}
    save_file(tensors, folder / name)
    fsync_file(folder / name)
    size, digest = (folder / name).stat().st_size, sha256_file(folder / name)
    return {"files": {name: {"bytes": size, "sha256": digest}}, "tensors": told}


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
    """A sharded checkpoint, read piece by piece; each tensor only where this process needs it."""

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
            raise ModelError(f"The index is damaged: {error!r}.", str(folder / INDEX), FIX) from error
        for name in names:
            if Path(name).name != name or not (folder / name).is_file() or (folder / name).is_symlink():
                raise ModelError(f"The index names {name!r}, no file of this folder.", str(folder / INDEX), FIX)

    def keys(self, kind: str) -> list[str]:
        """The names of one kind, without its prefix."""
        return [key.removeprefix(kind) for key in self._tensors if key.startswith(kind)]

    def shape(self, key: str) -> tuple[int, ...]:
        return tuple(self._tensors[key]["shape"])

    def fill(self, key: str, target: Tensor) -> None:
        """Copy what a whole or sharded tensor holds of `key`. Raises: ModelError when shapes or pieces do not fit."""
        if tuple(target.shape) != self.shape(key):
            raise ModelError(
                f"{key} has the shape {list(self.shape(key))}, the model {list(target.shape)}.",
                str(self.folder),
                "Use the run's own model.",
            )
        local, offset = _local_shard(target, everywhere=True)
        assert local is not None
        for piece in self._tensors[key]["pieces"]:
            overlap = [
                (max(mine, its), min(mine + have, its + has))
                for mine, have, its, has in zip(offset, local.shape, piece["offset"], piece["size"], strict=True)
            ]
            if any(start >= stop for start, stop in overlap):
                continue
            there = tuple(slice(a - its, b - its) for (a, b), its in zip(overlap, piece["offset"], strict=True))
            here = tuple(slice(a - mine, b - mine) for (a, b), mine in zip(overlap, offset, strict=True))
            local[here].copy_(self._read(piece["file"], key, there))

    def get(self, key: str) -> Tensor:
        """A tensor made whole, in its own type."""
        first = self._tensors[key]["pieces"][0]
        one = self._read(first["file"], key, tuple(slice(0, size) for size in first["size"]))
        made = one.new_empty(self.shape(key))
        self.fill(key, made)
        return made

    def random(self, rank: int) -> dict[str, Tensor]:
        """The random states of that process, or of one that stands for it where there were fewer."""
        number = rank % self.processes
        name = f"shard-{number:05d}-of-{self.processes:05d}.safetensors"
        with safe_open(self.folder / name, framework="pt") as file:
            keys = [key for key in file.keys() if key.startswith(RANDOM)]  # noqa: SIM118  (no mapping)
            return {key.removeprefix(RANDOM): file.get_tensor(key) for key in keys}

    def _read(self, name: str, key: str, part: tuple[slice, ...]) -> Tensor:
        try:
            with safe_open(self.folder / name, framework="pt") as file:
                if not part:
                    whole: Tensor = file.get_tensor(key)
                    return whole
                piece: Tensor = file.get_slice(key)[part]
                return piece
        except (SafetensorError, OSError) as error:
            raise ModelError(f"{name} cannot be read: {error}.", str(self.folder), FIX) from error


def load_weights(folder: Path, model: Any) -> None:
    """Put a sharded checkpoint's trained weights into a model, whole or sharded. Raises: ModelError."""
    shards, moving = Shards(folder), {n: p for n, p in model.named_parameters() if p.requires_grad}
    if set(moving) != set(shards.keys(WEIGHT)):
        other = sorted(set(moving) ^ set(shards.keys(WEIGHT)))[:3]
        raise ModelError(f"Weights do not fit the model: {other}", str(folder), "Use the run's own model.")
    for name, parameter in moving.items():
        shards.fill(WEIGHT + name, parameter.data)


def optimizer_states(folder: Path, parameters: Sequence[Any]) -> dict[int, dict[str, Tensor]]:
    """Each parameter's states, cut as the parameter is. Raises: ModelError."""
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


def _named(model: Any, states: Mapping[int, Mapping[str, Any]] | None) -> Iterator[tuple[str, Any]]:
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            yield WEIGHT + name, parameter
    for number, values in (states or {}).items():
        for name, value in values.items():
            yield f"{STATE}{number}.{name}", value if isinstance(value, Tensor) else torch.tensor(value)


def _local_shard(value: Any, everywhere: bool = False) -> tuple[Tensor | None, list[int]]:
    """(this process's part, where it begins); a tensor that all hold alike belongs to the first, or to everyone."""
    if hasattr(value, "device_mesh") and all(place.is_shard() for place in value.placements):
        from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

        _, offset = compute_local_shape_and_global_offset(value.shape, value.device_mesh, value.placements)
        local: Tensor = value.detach().to_local()
        return local, list(offset)
    whole = processes.full_tensor(value)
    return (whole if everywhere or processes.rank() == 0 else None), [0] * whole.ndim


def _check(known: Mapping[str, Any]) -> None:
    """Raises: ValueError when the pieces do not make up the whole."""
    shape = [int(n) for n in known["shape"]]
    held = 0
    for piece in known["pieces"]:
        offset, size = [int(n) for n in piece["offset"]], [int(n) for n in piece["size"]]
        ends = [a + b for a, b in zip(offset, size, strict=True)]
        if len(offset) != len(shape) or min([0, *offset, *size]) < 0 or any(a > b for a, b in zip(ends, shape)):
            raise ValueError(f"a piece of {shape} begins at {offset} with the size {size}")
        held += math.prod(size)
    if held != math.prod(shape):
        raise ValueError(f"the pieces of {shape} hold {held} numbers")
