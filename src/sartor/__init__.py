"""Sartor fits a language model to your own data, and proves the fit. Importing it loads no torch."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sartor.api import (
        Engine,
        compare,
        compare_several,
        encode,
        export,
        generate,
        import_file,
        load,
        predict,
        report,
        rerun,
        runs,
        score,
        show,
        train,
    )
    from sartor.base.errors import SartorError

__version__ = "0.1.0"
__all__ = [
    "Engine",
    "SartorError",
    "compare",
    "compare_several",
    "encode",
    "export",
    "generate",
    "import_file",
    "load",
    "predict",
    "report",
    "rerun",
    "runs",
    "score",
    "show",
    "train",
]


def __getattr__(name: str) -> Any:
    """Load the API when one of its names is first used."""
    if name == "SartorError":
        return importlib.import_module("sartor.base.errors").SartorError
    if name in __all__:
        return getattr(importlib.import_module("sartor.api"), name)
    raise AttributeError(f"module 'sartor' has no attribute {name!r}")
