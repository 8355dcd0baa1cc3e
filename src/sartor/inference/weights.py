"""Base and tuned weights of one model, merged once and switched by pointer; knows no prompts."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from sartor.model.load import load_adapter

WeightSet = Literal["base", "tuned"]


class Weights:
    """A plain transformers model whose parameters are either the base's or the tuned ones.

    The adapter is merged in float32 and rounded once to the model's type: exactly what an export holds. Both sets of
    the touched tensors stay in memory, so switching costs nothing and restores the base to the bit.
    """

    def __init__(self, model: Any, adapter: str | Path | None = None) -> None:
        self.model = model
        self.current: WeightSet = "base"
        self._sets: dict[str, tuple[Tensor, Tensor]] = {}
        self._fingerprints: dict[WeightSet, str] = {}
        if adapter is not None:
            self.model, self._sets = _merge(model, adapter)
            self.use("tuned")

    @property
    def has_both(self) -> bool:
        return bool(self._sets)

    def use(self, which: WeightSet) -> None:
        """Make the model answer with these weights; without an adapter there is only one set."""
        if not self._sets or which == self.current:
            return
        parameters = dict(self.model.named_parameters(remove_duplicate=False))
        for name, (base, tuned) in self._sets.items():
            parameters[name].data = tuned if which == "tuned" else base
        self.current = which

    def discard_other(self, which: WeightSet) -> None:
        """Free the other set's tensors: an export needs one of them, and half the memory."""
        self.use(which)
        self._sets = {}

    def fingerprint(self) -> str:
        """The first 12 hex digits of SHA-256 over the bytes of every parameter that answers now."""
        if self.current not in self._fingerprints:
            digest = hashlib.sha256()
            for name, parameter in self.model.named_parameters():
                digest.update(name.encode())
                digest.update(parameter.detach().contiguous().view(torch.uint8).cpu().numpy().data)
            self._fingerprints[self.current] = digest.hexdigest()[:12]
        return self._fingerprints[self.current]


@torch.no_grad()
def _merge(model: Any, adapter: str | Path) -> tuple[Any, dict[str, tuple[Tensor, Tensor]]]:
    """The bare base model again, and for each touched parameter its base and its tuned tensor."""
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils import ModulesToSaveWrapper

    names = {id(parameter): name for name, parameter in model.named_parameters()}
    wrapped = load_adapter(model, adapter, trainable=True)  # else peft rounds the matrices to the base's type
    sets: dict[str, tuple[Tensor, Tensor]] = {}
    module: Any
    for module in wrapped.modules():
        if isinstance(module, BaseTunerLayer):
            parameter = module.get_base_layer().weight
            base, name = parameter.data, names[id(parameter)]
            parameter.data = base.to(torch.float32, copy=True)  # merging writes in place
            module.merge()
            sets[name] = (base, parameter.data.to(base.dtype))
            parameter.data = base
            module.merged_adapters.clear()
        elif isinstance(module, ModulesToSaveWrapper):
            original, saved = module.original_module, module.modules_to_save[module.active_adapter]
            for key, parameter in original.named_parameters():
                tuned = dict(saved.named_parameters())[key].data.to(parameter.dtype)
                sets[names[id(parameter)]] = (parameter.data, tuned)
    return wrapped.unload(), sets
