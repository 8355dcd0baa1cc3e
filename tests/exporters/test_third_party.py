"""An installed package adds a metric and an export format through entry points; a file in the folder does the same."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sartor.base import registry
from sartor.evaluation import metrics
from support.tiny import make_model
from support.tiny_adapter import save_adapter

MODULE = """
from sartor.base.i18n import tr
from sartor.evaluation.metrics import PairMetric
from sartor.exporters import Exporter, ExportResult


class StartsAlike(PairMetric):
    def score(self, prediction, reference):
        return 100.0 if prediction[:1] == reference[:1] else 0.0


class NameOnly(Exporter):
    name = "name-only"
    label = tr("The name alone")
    description = tr("A text file.")
    quants = ("loud", "quiet")

    def export(self, source, folder, options):
        (folder / "name.txt").write_text(f"{source.name} {options.quant}")
        return ExportResult(details={"quant": options.quant})


METRIC = StartsAlike(name="starts-alike", signature="first|mean-of-rows|theirs-1", meaning=tr("The first character."))
EXPORTER = NameOnly()
"""
ENTRY_POINTS = """[sartor.metrics]
starts-alike = their_plugins:METRIC

[sartor.exporters]
name-only = their_plugins:EXPORTER
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder with an installed package, as pip leaves it."""
    folder = tmp_path / "site"
    info = folder / "their_plugins-1.0.dist-info"
    info.mkdir(parents=True)
    (folder / "their_plugins.py").write_text(MODULE, encoding="utf-8")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-plugins\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text(ENTRY_POINTS, encoding="utf-8")
    return folder


def sartor(site: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-m", "sartor", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path})


def test_an_installed_metric_scores(site: Path, tmp_path: Path) -> None:
    file = tmp_path / "answers.jsonl"
    file.write_text('{"predict": "cat", "label": "car"}\n{"predict": "cat", "label": "dog"}\n', encoding="utf-8")
    done = sartor(site, "score", str(file), "--metrics", "starts-alike", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["starts-alike"]["value"] == 50.0
    done = sartor(site, "score", str(file), "--json")
    assert {"starts-alike", "rouge-l"} <= set(json.loads(done.stdout))


def test_an_installed_exporter_exports(site: Path, tiny_model_dir: Path, tmp_path: Path) -> None:
    adapter = save_adapter(make_model(), tmp_path / "tuned", base=tiny_model_dir)
    for file in tiny_model_dir.glob("*token*"):
        shutil.copy(file, adapter)
    done = sartor(site, "export", str(adapter), "--to", "name-only", "--out", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "name.txt").read_text(encoding="utf-8") == "tuned loud"
    record = json.loads((tmp_path / "out" / "export.json").read_text(encoding="utf-8"))
    assert (record["form"], record["quant"], record["checks"]) == ("name-only", "loud", [])
    done = sartor(site, "export", str(adapter), "--to", "name-only", "--quant", "shrill", "--out", str(tmp_path / "no"))
    assert "loud, quiet" in done.stderr + done.stdout


def test_a_new_metric_or_exporter_is_one_new_file(tmp_path: Path) -> None:
    """A copy of the package with two files more: nothing else changes, and both are known."""
    copy = tmp_path / "copy" / "sartor"
    shutil.copytree(Path(metrics.__file__).parents[2], copy, ignore=shutil.ignore_patterns("__pycache__"))
    (copy / "evaluation" / "metrics" / "starts_alike.py").write_text(MODULE + "PLUGIN = METRIC\n", encoding="utf-8")
    (copy / "exporters" / "name_only.py").write_text(MODULE + "PLUGIN = EXPORTER\n", encoding="utf-8")
    program = (
        "from sartor.evaluation.metrics import find; from sartor.exporters import EXPORTERS;"
        "print(len([m for m in find(['all']) if m.name == 'starts-alike']), EXPORTERS.get('name-only').quants)"
    )
    environment = {**os.environ, "PYTHONPATH": str(copy.parent)}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert done.stdout == "1 ('loud', 'quiet')\n", done.stderr
    assert "starts_alike" not in registry.names("sartor.evaluation.metrics")
