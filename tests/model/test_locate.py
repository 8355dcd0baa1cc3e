"""GGUF files as models: dequantized once, again when the file changes, refused by name when they cannot be read."""

from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path

import pytest
import torch

from sartor.base.errors import ModelError
from sartor.base.settings import ModelSettings
from sartor.model import locate
from sartor.model.known_names import EMBEDDED
from sartor.model.load import load_model, load_tokenizer


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SARTOR_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.real
def test_a_gguf_file_is_the_model_that_the_embedded_one_is(tmp_path: Path) -> None:
    module, file, _ = EMBEDDED["smollm2-135m"]
    spec = importlib.util.find_spec(module)
    assert spec is not None
    own = tmp_path / "Mine.GGUF"
    shutil.copy(Path(next(iter(spec.submodule_search_locations or ()))) / file, own)
    models = [load_model(ModelSettings(model_name_or_path=name), device="cpu") for name in ("smollm2-135m", str(own))]
    for one, other in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert torch.equal(one, other)
    tokenizers = [load_tokenizer(name) for name in ("smollm2-135m", str(own))]
    assert tokenizers[0].chat_template == tokenizers[1].chat_template
    assert tokenizers[0]("Hello, 世界").input_ids == tokenizers[1]("Hello, 世界").input_ids


def test_it_is_dequantized_once_and_again_when_it_changes(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Path] = []

    def dequantize(source: Path, target: Path) -> None:
        made.append(target)
        target.mkdir(parents=True, exist_ok=True)
        locate._write_manifest(source, target)

    monkeypatch.setattr(locate, "_dequantize", dequantize)
    (tmp_path / "a").mkdir()
    file, other = tmp_path / "m.gguf", tmp_path / "a" / "m.gguf"
    file.write_bytes(b"GGUF")
    other.write_bytes(b"GGUF")
    first = locate.resolve_model(str(file))
    assert locate.resolve_model(str(file)) == first
    assert len(made) == 1
    assert Path(first).is_relative_to(cache)
    assert locate.resolve_model(str(other)) != first
    os.utime(file, ns=(1, 1))
    assert locate.resolve_model(str(file)) == first
    assert len(made) == 3


def test_a_damaged_one_is_refused_each_time(tmp_path: Path, cache: Path) -> None:
    file = tmp_path / "text.gguf"
    file.write_text("not one")
    for _ in range(2):
        with pytest.raises(ModelError, match="GGUF file cannot be read"):
            locate.resolve_model(str(file))


def test_a_folder_of_gguf_files_says_which_to_name(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    with pytest.raises(ModelError, match=r"name it: .*m\.gguf"):
        locate.resolve_model(str(tmp_path))
