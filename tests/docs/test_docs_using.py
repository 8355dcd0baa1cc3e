"""docs/evaluation.md, export.md and serving.md are executed: every bash, python and yaml block, with the tiny model."""

from __future__ import annotations

import re
import shlex
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sartor import api
from sartor.base.settings import GenerationSettings
from sartor.cli import main
from sartor.inference.engine import Engine
from sartor.model import locate
from support.tiny import make_model
from support.tiny_adapter import save_adapter

DOCS = Path(__file__).parents[2] / "docs"


def blocks(name: str) -> list[tuple[str, str]]:
    text = (DOCS / name).read_text(encoding="utf-8")
    return re.findall(r"```(bash|python|yaml)\n(.*?)```", text, re.DOTALL)


@pytest.fixture
def home(tiny_model_dir: Path, tiny_tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with runs/first, where the embedded model's name means the tiny one."""
    monkeypatch.setattr(locate, "_embedded", lambda name: tiny_model_dir)
    save_adapter(make_model(), tmp_path / "runs" / "first", base=tiny_model_dir)
    tiny_tokenizer.save_pretrained(tmp_path / "runs" / "first")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.real
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

    from sartor.server import run as serving
    from sartor.server.app import ServerSettings
    from support.serving import Served

    asked: dict[str, Any] = {}
    monkeypatch.setattr(serving, "serve", lambda config, **options: asked.update(config=config, **options))
    engine = Engine.load(str(tiny_model_dir), home / "runs" / "first", dtype="float32", device="cpu")
    served = Served(engine, ServerSettings("first", GenerationSettings(max_new_tokens=64)))
    try:
        for language, text in blocks("serving.md"):
            here = text.replace("http://127.0.0.1:8000", served.address)
            if language == "python":
                exec(compile(here, "docs/serving.md", "exec", dont_inherit=True), {"__name__": "served"})
                assert len(capsys.readouterr().out) > 20
            elif here.startswith("curl"):
                done = subprocess.run(here, shell=True, capture_output=True, text=True, check=True)  # noqa: S602
                shown = ('"ok"', "first:base", "sartor_tokens_total")
                assert all(part in done.stdout for part in (shown if "/health" in here else ("text_completion",)))
            else:
                with pytest.raises(SystemExit):
                    main(shlex.split(here)[1:])
                assert SimpleNamespace(**asked).port == 8000
    finally:
        served.close()


@pytest.fixture
def judge() -> Iterator[str]:
    """An address whose model always prefers the first answer."""

    class First(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            body = b'{"choices": [{"message": {"content": "1"}}]}'
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), First)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.real
def test_the_examples_of_evaluation(
    tiny_model_dir: Path,
    tmp_path: Path,
    judge: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MY_KEY", "k")
    pairs = DOCS.parent / "examples" / "pride" / "pride_qa_en.csv"
    api.import_file(pairs, "pride_en", dataset_dir=tmp_path / "data")
    api.train(
        model_name_or_path=str(tiny_model_dir),
        dataset="pride_en",
        val_size=20,
        output_dir="runs/pride",
        max_steps=6,
        save_strategy="steps",
        save_steps=4,
        learning_rate=1e-2,
        use_cpu=True,
        dtype="float32",
        plot_loss=False,
    )
    for language, text in blocks("evaluation.md"):
        here = text.replace("http://127.0.0.1:8000", judge)
        if here.startswith("# covers.py"):
            (tmp_path / "covers.py").write_text(here, encoding="utf-8")
        elif language == "python":
            exec(compile(here, "docs/evaluation.md", "exec"), {})
        else:
            for line in here.splitlines():
                with pytest.raises(SystemExit) as ended:
                    main(shlex.split(line)[1:])
                assert ended.value.code in (0, None), (line, capsys.readouterr())
    out = capsys.readouterr().out
    assert "of 10 rows are training rows" in out
    assert all(part in out for part in ("covers-names", "seeds", "Judge:", "differences from base", "Report:"))
    assert (tmp_path / "runs" / "pride-seed-43" / "verdict.json").exists()
