"""Several processes as one: collectives, gradients summed, weights sharded by FSDP2 and gathered again."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard  # slow to import, and needed by sharded runs only
from torch.distributed.tensor import distribute_tensor

from sartor.base.errors import ConfigError
from sartor.model.layers import decoder_layers
from sartor.model.load import FULL_STATE_ATTR
from sartor.training.objective import Objective


def start(device: str, deepspeed: bool = False) -> None:
    """Join the process group that torchrun has prepared; nothing to do for one process."""
    if deepspeed:
        os.environ["ACCELERATE_USE_DEEPSPEED"] = "true"  # accelerate reads this, not its plugin
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
        from accelerate import PartialState  # slow to import, and needed by several processes only

        if deepspeed and device == "cpu":
            PartialState(backend="gloo")  # cpu=True would turn DeepSpeed off
        else:
            PartialState(cpu=device == "cpu")


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def broadcast(value: Any) -> Any:
    """The first process's value, in every process."""
    if world_size() == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def all_gather(value: Any) -> list[Any]:
    """Every process's value, in the order of their ranks, in every process."""
    if world_size() == 1:
        return [value]
    box: list[Any] = [None] * world_size()
    dist.all_gather_object(box, value)
    return box


def barrier() -> None:
    """Wait until every process has come here."""
    if world_size() > 1:
        dist.barrier()


def all_reduce_max(number: int, device: torch.device) -> int:
    """The largest of all processes' numbers."""
    if world_size() == 1:
        return number
    box = torch.tensor(number, device=device)
    dist.all_reduce(box, dist.ReduceOp.MAX)
    return int(box)


def shard(objective: Objective, model: nn.Module) -> None:
    """Shard the weights over all processes: one group per decoder layer and one for the rest (FSDP2).

    Raises: ConfigError with a single process, or when the reference is a copy of the weights.
    """

    if world_size() == 1:
        raise ConfigError("fsdp needs several processes.", "fsdp", "Run: torchrun --nproc-per-node N -m sartor train …")
    if objective.reference is not None and objective.reference.keeps_a_copy:
        raise ConfigError(
            "With fsdp the reference cannot be a copy of the weights.",
            "fsdp",
            "Use a fresh LoRA, ref_model, or pref_loss: orpo or simpo.",
        )
    for layer in decoder_layers(model):
        fully_shard(layer)
    fully_shard(objective)


def is_sharded(parameters: Iterable[Any]) -> bool:
    return any(hasattr(p, "full_tensor") for p in parameters)


def full_tensor(tensor: Any) -> Tensor:
    """A sharded tensor gathered (every process must call), any other as it is."""
    made: Tensor = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    return made


def shard_like(value: Tensor, parameter: Any) -> Tensor:
    """A full tensor, sharded like a sharded parameter of the same shape."""
    if not hasattr(parameter, "device_mesh") or value.shape != parameter.shape:
        return value

    cut: Tensor = distribute_tensor(value.to(parameter.device), parameter.device_mesh, parameter.placements)
    return cut


@contextmanager
def full_weights(model: Any, full_state: Mapping[str, Tensor] | None = None) -> Iterator[None]:
    """While the block runs, a sharded model holds its full weights, on the first process's CPU, for saving.

    Every process must call; each gathers one weight at a time. `full_state` is given where another library has
    gathered the weights already.
    """
    if full_state is not None:
        setattr(model, FULL_STATE_ATTR, dict(full_state))
    elif is_sharded(model.parameters()):
        state = model.state_dict(keep_vars=True)
        made: dict[int, Any] = {}
        for t in state.values():  # tied weights are one tensor, and stay one
            if id(t) not in made:
                full = full_tensor(t).detach()
                made[id(t)] = full.cpu() if rank() == 0 else None
        setattr(model, FULL_STATE_ATTR, {name: made[id(t)] for name, t in state.items()})
    try:
        yield
    finally:
        if hasattr(model, FULL_STATE_ATTR):
            delattr(model, FULL_STATE_ATTR)


def sum_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Sum the gradients over all processes, in one message per number type; FSDP2 has done so already.

    Not with DDP's hooks: they need equally many backward passes in every process, and micro-batches are cut by length.
    """
    if world_size() == 1:
        return
    plain = [p for p in parameters if p.requires_grad and not hasattr(p, "full_tensor")]
    for p in plain:
        p.grad = torch.zeros_like(p) if p.grad is None else p.grad
    for dtype in sorted({p.dtype for p in plain}, key=str):
        group = [p.grad for p in plain if p.dtype == dtype and p.grad is not None]
        flat = torch.cat([g.flatten() for g in group])
        dist.all_reduce(flat)
        for grad, part in zip(group, torch.split(flat, [g.numel() for g in group]), strict=True):
            grad.copy_(part.view_as(grad))
