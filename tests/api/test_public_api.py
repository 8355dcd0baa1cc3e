"""The names that `sartor` exports: complete, lazy, typed, and each function's example runs."""

from __future__ import annotations

import ast
import doctest
import inspect
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import sartor

FUNCTIONS = [name for name in sartor.__all__ if inspect.isfunction(getattr(sartor, name))]
NAMES = set(
    """
    add_row chat check compare compare_several encode encode_sequences estimate estimate_generation export generate
    import_file load predict read_refused read_rows report rerun runs save_version score score_file show split train
    Answer CheckReport Comparison ConfigError DataError Demonstration Difference Document EndpointError Engine
    Estimate Example ExportError Exported Feedback GenerationResult GenerationSettings ImportResult Interrupted
    LabelView Ledger Loaded Message ModelError Permissions Plan Prediction Predictions Preference PromptError Run
    RunConfig RunError RunSummary SartorError Score Skipped SplitResult TokenSequence Verdict
    """.split()  # noqa: SIM905
)


def test_the_public_names_are_pinned() -> None:
    assert set(sartor.__all__) == NAMES
    assert set(sartor.__all__) <= set(dir(sartor))
    with pytest.raises(AttributeError, match="no attribute 'trane'"):
        sartor.trane  # type: ignore[attr-defined]  # noqa: B018


def test_type_checkers_see_the_same_names() -> None:
    tree = ast.parse(Path(sartor.__file__).read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    typed = {alias.name for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert typed == set(sartor.__all__)


def test_importing_it_is_light() -> None:
    program = "import sys, sartor; dir(sartor); print(sorted(m for m in sys.modules if m.startswith('sartor.')))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, tiny_model_dir: Path) -> Path:
    """What the examples stand on: `data/` with the dataset `chapters`, `questions.csv`, `sft.yaml`, `runs/first`."""
    folder = tmp_path_factory.mktemp("examples")
    (folder / "data").mkdir()
    lines = "".join(f"What is chapter {n}?,It is chapter {n}.\n" for n in range(1, 13))
    for file in (folder / "questions.csv", folder / "data" / "chapters.csv"):
        file.write_text("question,answer\n" + lines, encoding="utf-8")
    entry = {"file_name": "chapters.csv", "columns": {"prompt": "question", "response": "answer"}}
    (folder / "data" / "dataset_info.json").write_text(json.dumps({"chapters": entry}), encoding="utf-8")
    (folder / "predictions.jsonl").write_text('{"predict": "yes", "label": "yes"}\n', encoding="utf-8")
    settings: dict[str, Any] = {
        "model_name_or_path": str(tiny_model_dir),
        "dataset": "chapters",
        "dataset_dir": str(folder / "data"),
        "val_size": 4,
        "max_steps": 2,
        "use_cpu": True,
        "dtype": "float32",
        "plot_loss": False,
    }
    (folder / "sft.yaml").write_text(json.dumps(settings), encoding="utf-8")
    sartor.train(folder / "sft.yaml", output_dir=str(folder / "runs" / "first"))
    return folder


@pytest.mark.parametrize("name", [*FUNCTIONS, "Engine.load"])
def test_examples_run(
    name: str,
    project: Path,
    tiny_model_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(shutil.copytree(project, tmp_path / "project"))
    value: Any = sartor
    for part in name.split("."):
        value = getattr(value, part)
    doc = inspect.getdoc(value) or ""
    names = {"sartor": sartor, "model": str(tiny_model_dir)}
    test = doctest.DocTestParser().get_doctest(doc, names, name, None, None)
    assert test.examples, f"{name} needs an example"
    failed = doctest.DocTestRunner(verbose=False).run(test).failed
    assert not failed, capsys.readouterr().out
