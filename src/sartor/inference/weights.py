"""Base and tuned weights of one model, switched in place."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from sartor.base.errors import ModelError
from sartor.model.load import load_adapter

WeightSet = Literal["base", "tuned"]


class Weights:
    """A plain transformers model whose parameters are either the base's or the tuned ones.

    Each adapter is merged in float32 and rounded once to the model's type: exactly what an export holds. Both sets of
    the touched tensors stay in memory, so switching costs nothing and restores the base to the bit. With several
    adapters, each is merged onto the result of the one before, as training does; "base" is the model under all of
    them. Over 4- and 8-bit weights a merge would round the adapter away, so there it stays beside them.
    """

    def __init__(self, model: Any, adapters: Sequence[str | Path] = ()) -> None:
        self.model = model
        self.current: WeightSet = "base"
        self._sets: dict[str, tuple[Tensor, Tensor]] = {}
        self._unmerged: list[Any] = []
        self._fingerprints: dict[WeightSet, str] = {}
        if adapters and getattr(model, "is_quantized", False):
            self._attach(adapters)
        else:
            for adapter in adapters:
                self._merge(adapter)
        if adapters:
            self.use("tuned")

    @property
    def has_both(self) -> bool:
        return bool(self._sets or self._unmerged)

    @property
    def merged(self) -> bool:
        """Whether the tuned weights are plain parameters, as `save_pretrained` writes them."""
        return not self._unmerged

    def use(self, which: WeightSet) -> None:
        """Make the model answer with these weights; without an adapter there is only one set."""
        if which == self.current or not self.has_both:
            return
        parameters = dict(self.model.named_parameters(remove_duplicate=False))
        for name, (base, tuned) in self._sets.items():
            parameters[name].data = tuned if which == "tuned" else base
        for layer in self._unmerged:
            layer.enable_adapters(which == "tuned")
        self.current = which

    def discard_other(self, which: WeightSet) -> None:
        """Free the other set's tensors: an export needs one of them, and half the memory."""
        self.use(which)
        self._sets = {}

    def fingerprint(self) -> str:
        """The first 12 hex digits of SHA-256 over the bytes of every parameter that answers now."""
        if self.current not in self._fingerprints:
            digest = hashlib.sha256()
            for name, parameter in self._parameters():
                digest.update(name.encode())
                digest.update(parameter.detach().contiguous().view(torch.uint8).cpu().numpy().data)
            self._fingerprints[self.current] = digest.hexdigest()[:12]
        return self._fingerprints[self.current]

    def _parameters(self) -> Iterator[tuple[str, Tensor]]:
        """The parameters in use, under the names of the model without an adapter beside its layers."""
        beside = self._own_parameters() if self.current == "base" else set()
        for name, parameter in self.model.named_parameters():
            if id(parameter) not in beside:
                yield name.replace(".base_layer.", ".").replace(".original_module.", "."), parameter

    def _own_parameters(self) -> set[int]:
        """Ids of the parameters that belong to an unmerged adapter."""
        found: set[int] = set()
        for layer in self._unmerged:
            for name, parameter in layer.named_parameters():
                if not name.startswith(("base_layer.", "original_module.")):
                    found.add(id(parameter))
        return found

    def _attach(self, adapters: Sequence[str | Path]) -> None:
        """Put one adapter beside quantized layers. Raises: ModelError for several."""
        from peft.tuners.tuners_utils import BaseTunerLayer
        from peft.utils import ModulesToSaveWrapper

        if len(adapters) > 1:
            raise ModelError(
                "A quantized model takes one adapter, not {count}.",
                ", ".join(map(str, adapters)),
                "Merge the earlier ones with `sartor export`, or leave quantization_bit out.",
                count=len(adapters),
            )
        wrapped = load_adapter(self.model, adapters[0])
        self.model, self.current = wrapped.get_base_model().eval(), "tuned"
        kinds = (BaseTunerLayer, ModulesToSaveWrapper)
        self._unmerged = [module for module in self.model.modules() if isinstance(module, kinds)]

    def _merge(self, adapter: str | Path) -> None:
        """Merge one more adapter onto the tuned weights so far."""
        self.model, merged = _merge(self.model, adapter)
        parameters = dict(self.model.named_parameters(remove_duplicate=False))
        for name, (before, tuned) in merged.items():
            base = self._sets[name][0] if name in self._sets else before
            self._sets[name] = (base, tuned)
            parameters[name].data = tuned
        self.current = "tuned"


@torch.no_grad()
def _merge(model: Any, adapter: str | Path) -> tuple[Any, dict[str, tuple[Tensor, Tensor]]]:
    """The bare model again, and for each touched parameter its tensor before and after the merge."""
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
