"""The Python API: one function for each thing people do; joins the packages below."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sartor.api.checking import CheckReport, check
from sartor.api.compare_many import compare_several, is_endpoint
from sartor.api.comparing import compare, report
from sartor.api.datasets import import_file, load, show
from sartor.api.edit_dataset import add_row, read_refused, read_rows, save_version
from sartor.api.estimating import estimate
from sartor.api.exporting import export
from sartor.api.generating import estimate_generation, generate
from sartor.api.list_runs import RunSummary, rerun, runs
from sartor.api.predicting import chat, predict, score, score_file
from sartor.api.prepare_data import ledger_json
from sartor.api.splitting import SplitResult, split
from sartor.api.training import Run, train
from sartor.api.training_settings import training_settings
from sartor.base.permissions import Permissions
from sartor.prompt.encode_messages import encode, encode_sequences

if TYPE_CHECKING:
    from sartor.inference.engine import Engine

__all__ = [
    "CheckReport",
    "Engine",
    "Permissions",
    "Run",
    "RunSummary",
    "SplitResult",
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
    "is_endpoint",
    "ledger_json",
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
    "training_settings",
]


def __getattr__(name: str) -> Any:
    """Engine loads torch; it is imported when first used."""
    if name == "Engine":
        from sartor.inference.engine import Engine

        return Engine
    raise AttributeError(f"module 'sartor.api' has no attribute {name!r}")
