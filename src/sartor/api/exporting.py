"""`export`: a run, an adapter, or LLaMA-Factory's merge settings, to one of the formats in `exporters/`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sartor.api.predicting import as_config
from sartor.api.resolve_target import run_of
from sartor.base.config import RunConfig
from sartor.base.errors import ConfigError, ExportError
from sartor.base.files import system_errors
from sartor.base.i18n import Text, tr
from sartor.base.permissions import Permissions
from sartor.exporters import ANSWERS_DIFFER, EXPORTERS, Exported, Exporter, ExportOptions, Source
from sartor.exporters._output import exported_folder, own_dtype, write_record


@system_errors()
def export(
    target: str | Path | RunConfig,
    to: str = "merged",
    out: str | Path | None = None,
    *,
    quant: str | None = None,
    dtype: str | None = None,
    check: bool = True,
    permissions: Permissions | None = None,
    **settings: Any,
) -> Exported:
    """Write a model in another format, and verify that it answers as the adapter over its base does.

    `quant` and `dtype` are options of some formats, as each exporter declares. `out` defaults to the setting
    `export_dir`, else a folder beside the run. The full-precision base is exported, also of a model trained with
    `quantization_bit`. Nothing is written when an error is raised.

    Raises: ConfigError, ModelError; ExportError when the format cannot hold the model, or answers differently.

    Example:
        >>> exported = sartor.export("runs/first", to="adapter", out="out")
        >>> exported.folder.name
        'out'
    """
    exporter = EXPORTERS.get(to)
    options = exporter.options(quant, dtype, check)
    config = as_config(target, settings, permissions)
    out_folder = _folder(config, target, to, out)

    request = _Request(config, exporter, options, out_folder, _name(config, target))
    *coarser, last = exporter.dtypes_to_try(_own_dtype(config), options.dtype)
    notes: list[Text] = []
    for dtype, following in zip(coarser, (*coarser[1:], last)):
        try:
            return _write(request, dtype, notes)
        except ExportError as error:
            if error.code != ANSWERS_DIFFER:
                raise
            notes.append(
                tr("Stored in {following}: {dtype} would change the answers.", following=following, dtype=dtype)
            )
    return _write(request, last, notes)


@dataclass(frozen=True, slots=True)
class _Request:
    """What `export` was called for."""

    config: RunConfig
    exporter: Exporter
    options: ExportOptions
    out: Path
    name: str


def _write(request: _Request, dtype: str, notes: Sequence[Text]) -> Exported:
    """Export with the weights stored in one type. Raises: ExportError with code `answers-differ`, and others."""
    exporter = request.exporter
    needs_float32 = exporter.needs_float32 or dtype not in ("", "bfloat16")
    source = _source(request.config, request.name, needs_float32)
    with exported_folder(request.out) as folder:
        result = exporter.export(source, folder, replace(request.options, dtype=dtype))
        details = {"notes": [note.render("en") for note in notes]} if notes else {}
        write_record(folder, exporter.name, source, replace(result, details={**result.details, **details}))
    return Exported(request.out, tuple(sorted(request.out.iterdir())), result.checks, tuple(notes))


def _own_dtype(config: RunConfig) -> str:
    from sartor.model.locate import resolve_model

    settings = config.model
    return own_dtype(resolve_model(settings.model_name_or_path, settings.model_revision), settings.model_revision)


def _source(config: RunConfig, name: str, needs_float32: bool) -> Source:
    """The model loaded on the CPU, with the tuned weights alone. Raises: ConfigError, ModelError, PromptError."""
    from sartor.inference.engine import Engine
    from sartor.model.locate import resolve_model

    model = resolve_model(config.model.model_name_or_path, config.model.model_revision)
    adapters = config.model.adapter_name_or_path
    if len(adapters) > 1:
        raise ConfigError(
            "Only one adapter can be exported at a time.", ", ".join(adapters), "Merge them one after the other."
        )
    loaded = config.model.model_copy(
        update={
            "model_name_or_path": model,
            "device": "cpu",
            "quantization_bit": None,
            "dtype": "bfloat16" if _own_dtype(config) == "bfloat16" and not needs_float32 else "float32",
        }
    )
    config = config.model_copy(update={"model": loaded})
    engine = Engine.from_config(config)
    engine.weights.discard_other("tuned")
    return Source(engine, config, Path(adapters[0]) if adapters else None, name)


def _folder(config: RunConfig, target: str | Path | RunConfig, to: str, out: str | Path | None) -> Path:
    if out or config.export.export_dir:
        return Path(str(out or config.export.export_dir))
    if not isinstance(target, RunConfig) and Path(target).is_dir():
        return Path(target).with_name(f"{Path(target).name}-{to}")
    raise ConfigError("No output folder.", "export_dir", "Pass --out FOLDER, or set export_dir.")


def _name(config: RunConfig, target: str | Path | RunConfig) -> str:
    """The run's name, else the model's: what the file and the served model are called."""
    last = Path((*config.model.adapter_name_or_path, config.model.model_name_or_path)[0])
    run = run_of(last)
    return (run.name if run else last.name) or "model"
