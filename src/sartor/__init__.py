"""Sartor fine-tunes language models on your own data and measures the result. Importing it loads no torch."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sartor.api import (
        add_row,
        chat,
        check,
        compare,
        compare_several,
        encode,
        encode_sequences,
        estimate,
        estimate_generation,
        export,
        generate,
        import_file,
        load,
        predict,
        read_refused,
        read_rows,
        report,
        rerun,
        runs,
        save_version,
        score,
        score_file,
        show,
        split,
        train,
    )
    from sartor.api.checking import CheckReport
    from sartor.api.generating import GenerationResult
    from sartor.api.list_runs import RunSummary
    from sartor.api.splitting import SplitResult
    from sartor.api.training import Run
    from sartor.base.config import RunConfig
    from sartor.base.errors import (
        ConfigError,
        DataError,
        EndpointError,
        ExportError,
        Interrupted,
        ModelError,
        PromptError,
        RunError,
        SartorError,
    )
    from sartor.base.permissions import Permissions
    from sartor.base.settings import GenerationSettings
    from sartor.base.types import (
        Demonstration,
        Document,
        Example,
        Feedback,
        Ledger,
        Message,
        Prediction,
        Preference,
        Score,
        Skipped,
        TokenSequence,
    )
    from sartor.data.import_file import ImportResult
    from sartor.data.load import Loaded
    from sartor.evaluation.difference import Difference
    from sartor.evaluation.multi_model import Comparison
    from sartor.evaluation.predict import Predictions
    from sartor.evaluation.verdict import Verdict
    from sartor.exporters import Exported
    from sartor.inference.engine import Answer, Engine
    from sartor.prompt.label_view import LabelView
    from sartor.training.plan import Plan
    from sartor.training.preflight import Estimate

__version__ = "0.1.0"

_TYPES: Mapping[str, tuple[str, ...]] = {
    "sartor.api.checking": ("CheckReport",),
    "sartor.api.generating": ("GenerationResult",),
    "sartor.api.list_runs": ("RunSummary",),
    "sartor.api.splitting": ("SplitResult",),
    "sartor.api.training": ("Run",),
    "sartor.base.config": ("RunConfig",),
    "sartor.base.errors": (
        "ConfigError",
        "DataError",
        "EndpointError",
        "ExportError",
        "Interrupted",
        "ModelError",
        "PromptError",
        "RunError",
        "SartorError",
    ),
    "sartor.base.permissions": ("Permissions",),
    "sartor.base.settings": ("GenerationSettings",),
    "sartor.base.types": (
        "Demonstration",
        "Document",
        "Example",
        "Feedback",
        "Ledger",
        "Message",
        "Prediction",
        "Preference",
        "Score",
        "Skipped",
        "TokenSequence",
    ),
    "sartor.data.import_file": ("ImportResult",),
    "sartor.data.load": ("Loaded",),
    "sartor.evaluation.difference": ("Difference",),
    "sartor.evaluation.multi_model": ("Comparison",),
    "sartor.evaluation.predict": ("Predictions",),
    "sartor.evaluation.verdict": ("Verdict",),
    "sartor.exporters": ("Exported",),
    "sartor.inference.engine": ("Answer", "Engine"),
    "sartor.prompt.label_view": ("LabelView",),
    "sartor.training.plan": ("Plan",),
    "sartor.training.preflight": ("Estimate",),
}
"""Module → the public types that it defines; the functions are in `sartor.api`. Imported when a name is first used."""

_MODULE_OF = {name: module for module, names in _TYPES.items() for name in names}

__all__ = [
    "Answer",
    "CheckReport",
    "Comparison",
    "ConfigError",
    "DataError",
    "Demonstration",
    "Difference",
    "Document",
    "EndpointError",
    "Engine",
    "Estimate",
    "Example",
    "ExportError",
    "Exported",
    "Feedback",
    "GenerationResult",
    "GenerationSettings",
    "ImportResult",
    "Interrupted",
    "LabelView",
    "Ledger",
    "Loaded",
    "Message",
    "ModelError",
    "Permissions",
    "Plan",
    "Prediction",
    "Predictions",
    "Preference",
    "PromptError",
    "Run",
    "RunConfig",
    "RunError",
    "RunSummary",
    "SartorError",
    "Score",
    "Skipped",
    "SplitResult",
    "TokenSequence",
    "Verdict",
    "add_row",
    "chat",
    "check",
    "compare",
    "compare_several",
    "encode",
    "encode_sequences",
    "estimate",
    "estimate_generation",
    "export",
    "generate",
    "import_file",
    "load",
    "predict",
    "read_refused",
    "read_rows",
    "report",
    "rerun",
    "runs",
    "save_version",
    "score",
    "score_file",
    "show",
    "split",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'sartor' has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(_MODULE_OF.get(name, "sartor.api")), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
