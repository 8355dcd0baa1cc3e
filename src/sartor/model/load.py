"""Loads models, tokenizers and adapters, and sets which weights are trained."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import torch
from huggingface_hub import constants
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from torch import nn

from sartor.base.errors import ModelError, did_you_mean
from sartor.base.i18n import Text, tr
from sartor.base.process import tune_allocator
from sartor.base.settings import MethodSettings, ModelSettings
from sartor.model import attention, kernels, lora_offset, quantization, text_part
from sartor.model.adapter_config import read_adapter_config
from sartor.model.known_names import folders_near
from sartor.model.locate import quiet_transformers, resolve_model
from sartor.model.lora_targets import lora_targets
from sartor.model.neftune import add_noise
from sartor.model.safety import check_adapter
from sartor.model.shape import Shape
from sartor.model.weights_fit import check_adapter_weights, check_finite, check_model, file_tensors

FULL_STATE_ATTR = "sartor_full_state"
"""The attribute of a sharded model that holds its full state dict while it is saved."""

BAD_FILES = (
    *(OSError, ValueError, RuntimeError, LookupError, TypeError, AttributeError, ImportError, ArithmeticError),
    *(AssertionError, SafetensorError, StrictDataclassError),
)
"""What transformers and peft raise for files that are damaged or not theirs."""


_MAY_BE_MISSING = {
    "_raise_exceptions_for_gated_repo": False,
    "_raise_exceptions_for_missing_entries": False,
    "_raise_exceptions_for_connection_errors": False,
}


def shape_of(settings: ModelSettings) -> Shape | None:
    """The model's sizes from its config alone; None if transformers cannot read it without the model's own code."""
    from transformers import AutoConfig

    path = resolve_model(settings.model_name_or_path, settings.model_revision)
    try:
        return Shape.from_config(
            AutoConfig.from_pretrained(path, revision=settings.model_revision, trust_remote_code=False)
        )
    except BAD_FILES:
        return None  # loading the model reports what is wrong


def load_tokenizer(name_or_path: str, *, revision: str = "main", trust_remote_code: bool = False) -> Any:
    """Load the model's fast tokenizer. Raises: ModelError if it cannot be loaded."""
    from transformers import AutoTokenizer
    from transformers.utils import cached_file

    path = resolve_model(name_or_path, revision)
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, revision=revision, trust_remote_code=trust_remote_code)
        if not Path(path).is_dir():  # what ends an answer may be declared there; a template that needs it looks
            cached_file(path, "generation_config.json", revision=revision, **_MAY_BE_MISSING)
        return tokenizer
    except (OSError, ValueError, KeyError) as error:
        raise _load_error(
            tr("Could not load the tokenizer: {reason}", reason=_first_line(error)), name_or_path, error
        ) from error


def load_model(
    settings: ModelSettings,
    *,
    device: str | None = None,
    trust_remote_code: bool = False,
    head: Literal["text", "reward"] = "text",
) -> Any:
    """Load the causal language model in eval mode, with dtype and device from the settings.

    `head="reward"` loads transformers' sequence classifier with one label, whose head is new if the folder has none.

    Raises: ModelError if it is not found, needs remote code, or needs hardware that this machine lacks.
    """
    from transformers import AutoModelForSequenceClassification

    quiet_transformers()
    tune_allocator()
    options = {} if head == "text" else {"num_labels": 1}
    device = device or device_of(settings)
    path = resolve_model(settings.model_name_or_path, settings.model_revision)
    if settings.quantization_bit and device == "mps":
        raise ModelError(
            "4-bit and 8-bit weights require a CUDA GPU or a CPU.",
            f"quantization_bit: {settings.quantization_bit}",
            "Remove quantization_bit, or use device: cpu.",
        )
    trusted = {"revision": settings.model_revision, "trust_remote_code": trust_remote_code}
    try:
        with _offline_if_local(path), _new_head_expected() if head == "reward" else contextlib.nullcontext():
            config = _config_without_wishes(path, settings, **trusted, **options)
            kind = text_part.text_class(config) if head == "text" else AutoModelForSequenceClassification
            model, found = kind.from_pretrained(
                path,
                config=config,
                dtype=dtype_of(settings, device),
                use_safetensors=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # check_model refuses and names them
                **trusted,
                **quantization.load_options(settings, device, dtype_of(settings, device)),
            )
    except BAD_FILES as error:
        raise _load_error(
            tr("Could not load the model: {reason}", reason=_first_line(error)), settings.model_name_or_path, error
        ) from error
    check_model(found, settings.model_name_or_path, reward=head == "reward")
    check_finite(model.named_parameters(), settings.model_name_or_path)
    if settings.quantization_bit and Path(path).is_dir():  # 4-bit kernels can round NaN to a number
        check_finite(file_tensors(Path(path)), settings.model_name_or_path)
    quantization.pack_layers(model, True)
    if device == "cpu" and settings.attn_implementation == "auto" and model.config._attn_implementation == "sdpa":
        attention.use(model, attention.register())
    if settings.quantization_bit:
        from peft import prepare_model_for_kbit_training

        return prepare_model_for_kbit_training(model, use_gradient_checkpointing=False).eval()
    return model.to(device).eval()


def _config_without_wishes(path: str, settings: ModelSettings, **options: Any) -> Any:
    """The model's config with the attention of the settings: one named in config.json can be code from a hub."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(path, **options)
    wanted = None if settings.attn_implementation == "auto" else settings.attn_implementation
    for part in (config, *(getattr(config, name, None) for name in getattr(config, "sub_configs", ()))):
        if part is not None:
            part._attn_implementation_internal = part._experts_implementation_internal = None
    config._attn_implementation = wanted
    return config


@contextlib.contextmanager
def _offline_if_local(path: str) -> Iterator[None]:
    """Nothing that the files of a folder on this machine name is looked up on a hub."""
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or Path(path).is_dir()
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


@contextlib.contextmanager
def _new_head_expected() -> Iterator[None]:
    """Without transformers' report that the reward head is not in the file: it never is in a language model's."""
    logger = logging.getLogger("transformers")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def device_of(settings: ModelSettings) -> str:
    """The device from the settings; auto: the best available. Raises: ModelError if it is not available."""
    wanted = "cpu" if settings.use_cpu else settings.device
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if wanted == "auto":
        return next(name for name, is_available in available.items() if is_available)
    if not available.get(wanted, False):
        raise ModelError("No {device} device is available.", f"device: {wanted}", "Use device: auto.", device=wanted)
    return wanted


def dtype_of(settings: ModelSettings, device: str) -> torch.dtype:
    """The dtype from the settings; auto: bfloat16 if the device supports it, else float32."""
    if settings.dtype != "auto":
        return torch.bfloat16 if settings.dtype == "bfloat16" else torch.float32
    if device == "cpu":
        capable = torch.backends.cpu.get_cpu_capability() not in ("DEFAULT", "NO AVX")
        return torch.bfloat16 if capable else torch.float32
    return torch.bfloat16


def adapt(
    model: Any, method: MethodSettings, *, pure_bf16: bool = False, seed: int = 42, adapters: tuple[str, ...] = ()
) -> Any:
    """The model prepared for training: all weights, some layers, or LoRA (base frozen, A initialized from `seed`).

    Its 4-bit layers are never packed for a CPU, also where it is evaluated: packed ones have no gradient.

    The last of `adapters` is trained further, unless `create_new_adapter`; the others are merged into the base.
    Trained weights are kept in float32 unless `pure_bf16`.

    Raises: ModelError for unknown target modules, or adapters that do not match the model.
    """
    quantization.pack_layers(model, False)
    continued = method.finetuning_type == "lora" and adapters and not method.create_new_adapter
    below: lora_offset.LoraOffset = {}
    for path in adapters[:-1] if continued else adapters:
        merged = load_adapter(model, path, trainable=True)
        if method.finetuning_type == "lora":
            below = lora_offset.stack(below, lora_offset.lora_parts(merged))
        model = merged.merge_and_unload()
    if continued:
        tuned = load_adapter(model, adapters[-1], trainable=True)
    elif method.finetuning_type == "lora":
        tuned = _new_lora(model, method, pure_bf16, seed)
        if method.pissa_init:
            below = lora_offset.stack(below, lora_offset.lora_parts(tuned, sign=-1.0))
    else:
        tuned = _unfreeze(model, method, pure_bf16)
    tuned.sartor_below = below
    if method.neftune_noise_alpha:
        add_noise(tuned, method.neftune_noise_alpha)
    return tuned


def save_weights(model: Any, folder: Path) -> None:
    """Save the weights (or the adapter, relative to the original base) in the format of peft and transformers."""
    if below := getattr(model, "sartor_below", None):
        lora_offset.write(model, below, folder)
        return
    model.save_pretrained(folder, state_dict=getattr(model, FULL_STATE_ATTR, None))
    (folder / "README.md").unlink(missing_ok=True)  # peft's empty model card


def _new_lora(model: Any, method: MethodSettings, pure_bf16: bool, seed: int) -> Any:
    from peft import LoraConfig, get_peft_model

    _check_modules(model, method.additional_target, "additional_target")
    torch.manual_seed(seed)
    pissa = "pissa" if method.pissa_iter == -1 else f"pissa_niter_{method.pissa_iter}"
    config = LoraConfig(
        task_type="SEQ_CLS" if hasattr(model, "score") else "CAUSAL_LM",
        r=method.lora_rank,
        lora_alpha=method.lora_alpha or 2 * method.lora_rank,
        lora_dropout=method.lora_dropout,
        target_modules=lora_targets(model, method.lora_target),
        use_rslora=method.use_rslora,
        use_dora=method.use_dora,
        init_lora_weights=pissa if method.pissa_init else True,
        modules_to_save=list(method.additional_target) or None,
        ensure_weight_tying=_ties(model, method.additional_target),
    )
    tuned = get_peft_model(model, config, autocast_adapter_dtype=not pure_bf16)
    kernels.fuse_lora(tuned)
    kernels.fuse_norms(tuned)
    return tuned


def _unfreeze(model: Any, method: MethodSettings, pure_bf16: bool) -> Any:
    """full: train every weight. freeze: the last n layers (negative: the first n), a reward head, named modules."""
    model.requires_grad_(method.finetuning_type == "full")
    text_part.freeze_outside(model)
    if method.finetuning_type == "freeze":
        count = model.config.get_text_config().num_hidden_layers
        parts = text_part.text_decoder(model).modules()
        stacks = [m for m in parts if isinstance(m, nn.ModuleList) and len(m) == count]
        wanted = method.freeze_trainable_layers
        if not stacks or not 0 < abs(wanted) <= count:
            raise ModelError(
                "The model has {count} layers.",
                f"freeze_trainable_layers: {wanted}",
                "Choose a number from 1 to {count}, or its negative.",
                count=count,
            )
        for layer in stacks[0][-wanted:] if wanted > 0 else stacks[0][:-wanted]:
            layer.requires_grad_(True)
        _check_modules(model, method.freeze_extra_modules, "freeze_extra_modules")
        extra = {*method.freeze_extra_modules, *(["score"] if hasattr(model, "score") else [])}
        for name, module in model.named_modules():
            if name.rpartition(".")[2] in extra:
                module.requires_grad_(True)
    if not pure_bf16:
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
    return model


def _check_modules(model: Any, wanted: tuple[str, ...], setting: str) -> None:
    names = sorted({name.rpartition(".")[2] for name, _ in model.named_modules()} - {""})
    for name in wanted:
        if name not in names:
            raise ModelError("The model has no module {name!r}.", setting, did_you_mean(name, names), name=name)


def _ties(model: Any, names: tuple[str, ...]) -> bool:
    """Whether a module trained in full shares its weights with the head; they stay tied then."""
    return bool(getattr(model.config, "tie_word_embeddings", False)) and bool({"embed_tokens", "lm_head"} & set(names))


def load_adapter(model: Any, path: str | Path, *, trainable: bool = False) -> Any:
    """The model with the adapter from a folder.

    Raises: ModelError if there is none, its file is damaged, or it belongs to another model.
    """
    from peft import PeftModel

    folder = Path(path)
    if not (folder / "adapter_config.json").exists() or not (folder / "adapter_model.safetensors").exists():
        if not folder.exists():
            raise ModelError("There is no such folder.", folder, folders_near(str(path)), code="not-found")
        raise ModelError(
            "This folder contains no adapter.",
            folder,
            "An adapter has adapter_config.json and adapter_model.safetensors.",
        )
    check_adapter(folder)
    options = {"is_trainable": trainable, "autocast_adapter_dtype": trainable, "torch_device": "cpu"}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is missing is an error, below
            config = read_adapter_config(folder, model)
            tuned = PeftModel.from_pretrained(model, str(folder), config=config, **options)
        loaded = tuned.load_adapter(str(folder), "default", **options)  # again: only this tells what did not fit
    except SafetensorError as error:
        raise ModelError(
            "The adapter file is damaged: {reason}.", folder, "Use another checkpoint.", reason=error
        ) from error
    except BAD_FILES as error:
        raise ModelError(
            "The adapter does not match this model: {reason}",
            folder,
            "Use the base model that the adapter was trained on.",
            reason=_first_tensor(error),
        ) from error
    check_adapter_weights(tuned, loaded, folder)
    kernels.fuse_lora(tuned)
    kernels.fuse_norms(tuned)
    return tuned


def _load_error(what: Text, name: str, error: Exception) -> ModelError:
    if "trust_remote_code" in str(error):  # transformers has no error class for this
        return ModelError(
            what,
            name,
            "The model requires its own code: add --trust-remote-code if you trust it.",
            code="remote-code",
        )
    return ModelError(what, name, folders_near(name))


def _first_tensor(error: Exception) -> str:
    """What does not fit first: torch names the tensors from the second line on."""
    first, *tensors = [line.strip() for line in str(error).strip().splitlines()] or [type(error).__name__]
    return tensors[0] if tensors and first.startswith("Error(s) in loading state_dict") else first


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
