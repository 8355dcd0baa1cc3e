"""Taking a model home: a run, an adapter, or LLaMA-Factory's merge file, to one of the forms in `exporters/`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from sartor.api.predicting import as_config
from sartor.api.resolve_target import run_of
from sartor.base.config import RunConfig
from sartor.base.errors import ConfigError
from sartor.base.registry import plugin

if TYPE_CHECKING:
    from sartor.exporters._source import Exported

FORMS = "sartor.exporters"


def export(
    target: str | Path | RunConfig,
    to: str = "merged",
    out: str | Path | None = None,
    *,
    quant: str | None = None,
    dtype: str | None = None,
    check: bool = True,
    trust_remote_code: bool = False,
    **settings: Any,
) -> Exported:
    """Write a model in another form and prove that it answers as the adapter over its base does.

    `quant` (f16, q8_0, q4_0) belongs to gguf and ollama, `dtype` (else the model's own) to merged. `out` defaults to
    the setting `export_dir`, else a folder beside the run. Nothing is written when an error is raised.

    Raises: ConfigError, ModelError, ExportError when the form has no place for the model or answers differently.
    """
    form = plugin(FORMS, to)
    config = as_config(target, settings)
    folder = _folder(config, target, to, out)
    from sartor.exporters._source import Source, own_dtype
    from sartor.inference.engine import Engine
    from sartor.model.load import resolve_model

    model, adapters = resolve_model(config.model.model_name_or_path), config.model.adapter_name_or_path
    if len(adapters) > 1:
        raise ConfigError("Several adapters cannot be exported at once.", ", ".join(adapters), "Merge one by one.")
    prompt, precise = config.prompt, getattr(form, "PRECISE", False) or dtype not in (None, "bfloat16")
    engine = Engine.load(
        model,
        adapters[0] if adapters else None,
        template=prompt.template,
        default_system=prompt.default_system,
        enable_thinking=prompt.enable_thinking,
        device="cpu",
        trust_remote_code=trust_remote_code,
        dtype="bfloat16" if own_dtype(model) == "bfloat16" and not precise else "float32",
    )
    engine.weights.discard_other("tuned")
    source = Source(engine, model, Path(adapters[0]) if adapters else None, _name(config, target), trust_remote_code)
    options: dict[str, Any] = {"check": check, "dtype": dtype} | ({"quant": quant} if quant else {})
    exported: Exported = form.export(source, folder, **options)
    return exported


def _folder(config: RunConfig, target: str | Path | RunConfig, to: str, out: str | Path | None) -> Path:
    if out or config.export.export_dir:
        return Path(str(out or config.export.export_dir))
    if not isinstance(target, RunConfig) and Path(target).is_dir():
        return Path(target).with_name(f"{Path(target).name}-{to}")
    raise ConfigError("There is no folder to export to.", "export_dir", "Write --out FOLDER, or export_dir.")


def _name(config: RunConfig, target: str | Path | RunConfig) -> str:
    """The run's name, or the model's: what the file and the served model are called."""
    last = Path((*config.model.adapter_name_or_path, config.model.model_name_or_path)[0])
    run = run_of(last)
    return (run.name if run else last.name) or "model"
