"""Checks that every tensor of a model or adapter came from its files: none missing, none left over, all finite."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from sartor.base.errors import ModelError

SHOWN = 3
"""Tensors named in an error; the rest is counted."""
NEW_IN_REWARD_MODELS = ("score.weight",)
"""What a reward model has and a language model has not; it is drawn at random until it is trained."""
LEFT_OUT_OF_REWARD_MODELS = ("lm_head.weight", "lm_head.bias")


def check_model(found: Mapping[str, Collection[Any]], where: str, *, reward: bool = False) -> None:
    """Check what transformers reports of loading (`output_loading_info`), which tied and optional tensors are not in.

    Raises: ModelError that names the tensors.
    """
    missing, unexpected = set(found["missing_keys"]), set(found["unexpected_keys"])
    if reward:
        missing -= set(NEW_IN_REWARD_MODELS)
        unexpected -= set(LEFT_OUT_OF_REWARD_MODELS)
    if missing:
        raise ModelError(
            "The model's files lack {count} of its tensors, which would be random: {names}.",
            where,
            "Copy or download the model again; config.json must be that of these files.",
            count=len(missing),
            names=_names(missing),
        )
    if unexpected:
        raise ModelError(
            "The model has no place for {count} tensors of its files: {names}.",
            where,
            "Copy or download the model again; config.json must be that of these files.",
            count=len(unexpected),
            names=_names(unexpected),
        )
    misshapen = [str(item[0] if isinstance(item, tuple) else item) for item in found.get("mismatched_keys", ())]
    if misshapen:
        raise ModelError(
            "The model needs other shapes for {count} of its tensors: {names}.",
            where,
            "Copy or download the model again; config.json must be that of these files.",
            count=len(misshapen),
            names=_names(misshapen),
        )


def check_finite(tensors: Iterable[tuple[str, torch.Tensor]], where: object) -> None:
    """Raises: ModelError that names the tensors with a value that is NaN or infinite."""
    found: dict[int, tuple[str, torch.Tensor]] = {}  # by address: a tied one once
    for name, tensor in tensors:
        if tensor.is_meta or not tensor.is_floating_point() or not tensor.numel():
            continue
        if tensor.data_ptr() not in found and not _is_finite(tensor.detach()):
            found[tensor.data_ptr()] = name, tensor  # held, so that no other gets its address
    if found:
        raise ModelError(
            "{count} tensors contain NaN or infinite values: {names}.",
            where,
            "Copy or download the files again, or use an earlier checkpoint.",
            count=len(found),
            names=_names([name for name, _ in found.values()]),
        )


def file_tensors(folder: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors of a model's files, one at a time."""
    for path in sorted(folder.glob("model*.safetensors")):
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118 (the file is no mapping)
                tensor = file.get_tensor(name)
                if tensor.numel() > 1:  # a single one may be the open end of a range (Gemma 4's audio tower)
                    yield name, tensor


def _is_finite(tensor: torch.Tensor) -> bool:
    tensor = tensor.float() if tensor.element_size() == 1 else tensor  # 8-bit floats have no sum
    if torch.isfinite(tensor.sum(dtype=torch.float32)):  # no copy of the tensor
        return True
    return bool(torch.isfinite(tensor).all())  # the sum can overflow


def check_adapter_weights(tuned: Any, loaded: Any, folder: Path) -> None:
    """Check what peft reports of loading an adapter, and the modules that it holds in full.

    Raises: ModelError that names the tensors.
    """
    with safe_open(folder / "adapter_model.safetensors", "pt") as file:
        held = set(file.keys())
        check_finite(((name, file.get_tensor(name)) for name in sorted(held)), folder)
    missing = set(loaded.missing_keys) | _unsaved_modules(tuned, held)
    unexpected = set(loaded.unexpected_keys)
    for names, what in (
        (missing, "The adapter's file lacks {count} of its tensors, which would be random: {names}."),
        (unexpected, "The model has no place for {count} tensors of the adapter: {names}."),
    ):
        if names:
            raise ModelError(
                what,
                folder,
                "Use the base model that the adapter was trained on, and both of the adapter's files.",
                count=len(names),
                names=_names(names),
            )


def _unsaved_modules(tuned: Any, held: Collection[str]) -> set[str]:
    """Parameters of modules trained in full (`modules_to_save`) that the file does not hold."""
    mark = ".modules_to_save.default"
    state = {id(value): name for name, value in tuned.named_parameters() if mark in name}  # a tied one once
    return {name for name in state.values() if name.replace(mark, "") not in held}


def _names(names: Collection[str]) -> str:
    listed = sorted(names)
    return ", ".join(listed[:SHOWN]) + (", …" if len(listed) > SHOWN else "")
