"""Which linear layers get LoRA, and what the plan says about them: routers, experts, vision towers."""

from __future__ import annotations

from collections import Counter
from typing import Any

from torch import nn

from sartor.base.errors import ModelError
from sartor.base.i18n import Text, tr
from sartor.model.text_part import outside

WITHOUT_OUT_PROJ = ("falcon_h1", "falcon_mamba", "mamba", "mamba2", "nemotron_h")
"""Families whose fused kernels read the weight of `out_proj` past any adapter; PEFT refuses LoRA there."""
ROUTERS = ("gate", "router", "shared_expert_gate")
"""Names of the layers that choose experts."""


def lora_targets(model: Any, wanted: tuple[str, ...]) -> list[str]:
    """The linear layers that get LoRA: those in `wanted`, or all of the language model except head and routers.

    Names without their path, or with it where a vision or audio tower has layers of the same names.

    Raises: ModelError for a name that no linear layer has (naming those that exist).
    """
    places = _linear_layers(model)
    linear = {name.rpartition(".")[2] for name in places}
    if wanted != ("all",):
        for name in wanted:
            if name not in linear and not any(place == name or place.endswith("." + name) for place in places):
                raise ModelError(
                    "The model has no linear layer {name!r}.",
                    "lora_target",
                    "Known: {names}.",
                    name=name,
                    names=", ".join(sorted(linear)),
                )
    elif model.config.model_type in WITHOUT_OUT_PROJ:
        linear.discard("out_proj")
    if wanted == ("all",):
        linear -= _routers(model, places)
    chosen = sorted(linear) if wanted == ("all",) else list(wanted)
    elsewhere = {name.rpartition(".")[2] for name in outside(model)}
    if not elsewhere & {name.rpartition(".")[2] for name in chosen}:
        return chosen
    return [place for place in places if any(place == name or place.endswith("." + name) for name in chosen)]


def _linear_layers(model: Any) -> list[str]:
    """The linear layers that text passes through, without the head."""
    head = model.score if hasattr(model, "score") else model.get_output_embeddings()
    skipped = set(outside(model))
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module is not head and name not in skipped
    ]


def _routers(model: Any, places: list[str]) -> set[str]:
    """Names of linear layers that choose experts: as wide as there are experts, or one."""
    config = model.config.get_text_config()
    counts = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
    experts = {1, *(getattr(config, name, None) or 1 for name in counts)}
    found = {name.rpartition(".")[2] for name in places if model.get_submodule(name).out_features in experts}
    return found & set(ROUTERS)


def describe_lora(model: Any) -> Text:
    """What LoRA is on: how many layers of each name, and whether experts are among them."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = [name for name, module in model.named_modules() if isinstance(module, BaseTunerLayer)]
    counts = Counter(name.rpartition(".")[2] for name in layers)
    names = ", ".join(f"{name} × {count}" for name, count in sorted(counts.items()))
    text = tr("LoRA on {names}", names=names)
    causal = model.get_base_model()
    if outside(causal):
        text = tr("{text}; vision and audio towers and projectors stay as they are", text=text)
    if not _has_experts(causal):
        return text
    on_experts = sum(".experts." in name for name in layers)
    if on_experts:
        return tr("{text}; {count} of these layers are experts", text=text, count=on_experts)
    return tr("{text}; no expert is trained: their fused weights are no linear layers", text=text)


def _has_experts(causal: Any) -> bool:
    return any(name.rpartition(".")[2] == "experts" for name, _ in causal.named_modules())
