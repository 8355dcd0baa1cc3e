"""Sartor fits a language model to your own data, and proves the fit. Importing it loads no torch."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sartor.api import (
        CheckReport,
        Run,
        RunSummary,
        SplitResult,
        chat,
        check,
        compare,
        compare_several,
        encode,
        estimate,
        estimate_generation,
        export,
        generate,
        import_file,
        load,
        predict,
        report,
        rerun,
        runs,
        score,
        score_file,
        show,
        split,
        train,
    )
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
    from sartor.base.types import (
        Demonstration,
        Document,
        Feedback,
        Ledger,
        Message,
        Origin,
        Prediction,
        Preference,
        Score,
        Skipped,
        TokenSequence,
        ToolCall,
    )
    from sartor.data.load import Loaded
    from sartor.evaluation.multi_model import Comparison
    from sartor.evaluation.predict import Predictions
    from sartor.evaluation.verdict import Difference, Verdict
    from sartor.inference.engine import Answer, Engine
    from sartor.prompt.label_view import LabelView

__version__ = "0.1.0"
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
    "ExportError",
    "Feedback",
    "Interrupted",
    "LabelView",
    "Ledger",
    "Loaded",
    "Message",
    "ModelError",
    "Origin",
    "Permissions",
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
    "ToolCall",
    "Verdict",
    "chat",
    "check",
    "compare",
    "compare_several",
    "encode",
    "estimate",
    "estimate_generation",
    "export",
    "generate",
    "import_file",
    "load",
    "predict",
    "report",
    "rerun",
    "runs",
    "score",
    "score_file",
    "show",
    "split",
    "train",
]
_DEFINED_IN = {
    "sartor.base.config": ["RunConfig"],
    "sartor.base.errors": [
        "ConfigError",
        "DataError",
        "EndpointError",
        "ExportError",
        "Interrupted",
        "ModelError",
        "PromptError",
        "RunError",
        "SartorError",
    ],
    "sartor.base.permissions": ["Permissions"],
    "sartor.base.types": [
        "Demonstration",
        "Document",
        "Feedback",
        "Ledger",
        "Message",
        "Origin",
        "Prediction",
        "Preference",
        "Score",
        "Skipped",
        "TokenSequence",
        "ToolCall",
    ],
    "sartor.data.load": ["Loaded"],
    "sartor.evaluation.multi_model": ["Comparison"],
    "sartor.evaluation.predict": ["Predictions"],
    "sartor.evaluation.verdict": ["Difference", "Verdict"],
    "sartor.inference.engine": ["Answer", "Engine"],
    "sartor.prompt.label_view": ["LabelView"],
}
"""Module → the public names it defines; all others are in `sartor.api`. Imported when a name is first used."""
_MODULE_OF = {name: module for module, names in _DEFINED_IN.items() for name in names}


def __getattr__(name: str) -> Any:
    """Import the module that defines a public name when it is first used."""
    if name in __all__:
        return getattr(importlib.import_module(_MODULE_OF.get(name, "sartor.api")), name)
    raise AttributeError(f"module 'sartor' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
