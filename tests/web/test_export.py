"""The lines that use an exported model are right for any name; all its files come as one ZIP that is never whole."""

from __future__ import annotations

import ast
import io
import os
import shlex
import zipfile
from pathlib import Path

import pytest

from sartor.exporters import EXPORTERS
from sartor.web.pages.export import snippets
from sartor.web.zip_stream import BLOCK_BYTES, zipped

NAMES = ["qa-v2", "My run", "茶 'quoted' $(x)"]


@pytest.mark.parametrize("run", NAMES)
@pytest.mark.parametrize("form", EXPORTERS.names())
def test_every_snippet_is_code_that_names_this_model(run: str, form: str) -> None:
    folder = f"exports/{run}-{form}"
    for program, code in snippets(run, folder, form).items():
        lines = code.splitlines()
        if program == "sartor":
            assert shlex.split(code) == ["sartor", "serve", f"runs/{run}"]
            continue
        if program in ("openai", "transformers", "transformers + peft"):
            tree = ast.parse("\n".join(lines))
            said = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)]
            assert (run if program == "openai" else folder) in said
        else:
            words = [word for line in lines for word in shlex.split(line)]
            assert any(folder in word for word in words), "quoted as one word for the shell"


@pytest.mark.parametrize(
    ("form", "programs"),
    [
        ("merged", {"transformers", "vLLM"}),
        ("adapter", {"transformers + peft", "vLLM"}),
        ("gguf", {"llama.cpp"}),
        ("ollama", {"Ollama"}),
    ],
)
def test_each_form_has_the_programs_that_read_it(form: str, programs: set[str]) -> None:
    assert set(snippets("a", "exports/a", form)) == {"sartor", "openai", *programs}


def test_an_ollama_name_is_one_that_ollama_takes() -> None:
    (line,) = [line for line in snippets("My Run 茶", "e", "ollama")["Ollama"].splitlines() if "create" in line]
    assert line == "ollama create my-run -f Modelfile"


def test_all_files_come_as_one_zip_a_block_at_a_time(tmp_path: Path) -> None:
    folder = tmp_path / "qa-merged"
    (folder / "in").mkdir(parents=True)
    big = os.urandom(3 * BLOCK_BYTES + 5)
    (folder / "model.safetensors").write_bytes(big)
    (folder / "in" / "茶.json").write_text("{}", encoding="utf-8")
    (folder / "link").symlink_to("/etc/passwd")
    blocks = list(zipped(folder))
    assert max(map(len, blocks)) < BLOCK_BYTES + 4096, "never more than a block is held"
    with zipfile.ZipFile(io.BytesIO(b"".join(blocks))) as made:
        assert made.testzip() is None
        assert made.namelist() == ["qa-merged/in/茶.json", "qa-merged/model.safetensors"]
        assert made.read("qa-merged/model.safetensors") == big
