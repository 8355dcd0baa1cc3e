"""docs/export.md and docs/serving.md are executed: every bash, python and yaml block, with the tiny model."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sartor.base.settings import GenerationSettings
from sartor.cli import main
from sartor.learn import model as loading
from sartor.use.engine import Engine
from tiny import make_model
from tiny_adapter import save_adapter

DOCS = Path(__file__).parents[1] / "docs"


def blocks(name: str) -> list[tuple[str, str]]:
    text = (DOCS / name).read_text(encoding="utf-8")
    return re.findall(r"```(bash|python|yaml)\n(.*?)```", text, re.DOTALL)


@pytest.fixture
def home(tiny_model_dir: Path, tiny_tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with runs/first, where the embedded model's name means the tiny one."""
    resolve = loading.resolve_model
    monkeypatch.setattr(
        loading, "resolve_model", lambda name, *rest: str(tiny_model_dir) if name == "smollm2-135m" else resolve(name)
    )
    save_adapter(make_model(), tmp_path / "runs" / "first", base=tiny_model_dir)
    tiny_tokenizer.save_pretrained(tmp_path / "runs" / "first")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_examples_of_export(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for language, text in blocks("export.md"):
        if language == "yaml":
            (home / text.splitlines()[0].removeprefix("# ")).write_text(text, encoding="utf-8")
        elif language == "python":
            exec(compile(text, "docs/export.md", "exec"), {})
        else:
            for line in text.splitlines():
                with pytest.raises(SystemExit) as ended:
                    main(shlex.split(line)[1:])
                assert ended.value.code in (0, None), line
    made = {path.name for path in (home / "out").iterdir()}
    assert made == {"adapter", "merged", "gguf", "ollama", "from_python", "from_yaml", "yaml_gguf", "merged32"}
    assert capsys.readouterr().out.count("tokens agree") == 8


def test_the_examples_of_serving(
    home: Path, tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent / "server"))
    from serving import Served

    from sartor.server import run as serving
    from sartor.server.app import Settings

    asked: dict[str, Any] = {}
    monkeypatch.setattr(serving, "serve", lambda config, **options: asked.update(config=config, **options))
    engine = Engine.load(str(tiny_model_dir), home / "runs" / "first", dtype="float32", device="cpu")
    served = Served(engine, Settings("first", GenerationSettings(max_new_tokens=64)))
    try:
        for language, text in blocks("serving.md"):
            here = text.replace("http://127.0.0.1:8000", served.address)
            if language == "python":
                exec(compile(here, "docs/serving.md", "exec"), {})
                assert len(capsys.readouterr().out) > 20
            elif here.startswith("curl"):
                done = subprocess.run(here, shell=True, capture_output=True, text=True, check=True)  # noqa: S602
                assert all(part in done.stdout for part in ('"ok"', "first:base", "sartor_tokens_total"))
            else:
                with pytest.raises(SystemExit):
                    main(shlex.split(here)[1:])
                assert SimpleNamespace(**asked).port == 8000
    finally:
        served.close()
