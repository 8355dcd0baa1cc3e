"""What `import sartor` offers: pinned by name, typed, and light to import."""

from __future__ import annotations

import subprocess
import sys

import sartor

FUNCTIONS = [
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
TYPES = [
    "Answer",
    "CheckReport",
    "Comparison",
    "Demonstration",
    "Difference",
    "Document",
    "Engine",
    "Feedback",
    "LabelView",
    "Ledger",
    "Loaded",
    "Message",
    "Origin",
    "Permissions",
    "Prediction",
    "Predictions",
    "Preference",
    "Run",
    "RunConfig",
    "RunSummary",
    "Score",
    "Skipped",
    "SplitResult",
    "TokenSequence",
    "ToolCall",
    "Verdict",
]
ERRORS = [
    "ConfigError",
    "DataError",
    "EndpointError",
    "ExportError",
    "Interrupted",
    "ModelError",
    "PromptError",
    "RunError",
    "SartorError",
]


def test_the_public_names_are_these() -> None:
    assert sorted(sartor.__all__) == sorted([*FUNCTIONS, *TYPES, *ERRORS])
    assert set(sartor.__all__) <= set(dir(sartor))


def test_every_name_is_there_and_documented() -> None:
    for name in sartor.__all__:
        value = getattr(sartor, name)
        assert value.__doc__, name
        assert (name in FUNCTIONS) == (not isinstance(value, type)), name


def test_importing_sartor_is_light_and_functions_stay_functions() -> None:
    """No heavy library at import; and no subpackage takes the place of a function of the same name."""
    code = (
        "import sys, sartor; heavy = {'torch', 'transformers', 'pydantic', 'numpy'} & set(sys.modules);"
        "assert not heavy, heavy;"
        "import sartor.api, pkgutil; names = {m.name for m in pkgutil.iter_modules(sartor.__path__)};"
        "assert not names & set(sartor.__all__), names & set(sartor.__all__)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)
