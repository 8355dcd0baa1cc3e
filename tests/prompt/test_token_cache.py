"""The token store gives the rows that encoding gives, and never those of other inputs or of a damaged file."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sartor import api
from sartor.base.settings import PromptSettings
from sartor.base.types import Demonstration, Document, Example, Feedback, Message, Origin, Preference
from sartor.prompt import token_cache
from sartor.prompt.encode import Encoder
from sartor.prompt.template import Template
from sartor.prompt.token_cache import CachedRows, cache_key, encode_cached

INPUTS = {"files": ["abc"]}


def chat(number: int, answer: str) -> Demonstration:
    turns = (Message("user", f"Question {number}?"), Message("assistant", answer))
    return Demonstration(turns, Origin("d", "d.json", number))


def every_kind() -> list[Example]:
    rows: list[Example] = [chat(n, f"Answer {n} é中😀" * n) for n in range(1, 6)]
    silent = (Message("user", "Q"), Message("assistant", "A", train=False))
    rows.append(Demonstration(silent, Origin("d", "d.json", 6)))  # nothing to learn: skipped
    rows.append(chat(7, "x" * 400))  # too long: skipped
    question = (Message("user", "Which?"),)
    good, bad = Message("assistant", "This."), Message("assistant", "Or that.")
    rows.append(Preference(question, good, bad, Origin("d", "d.json", 8)))
    rows += [Feedback((*question, good), kind, Origin("d", "d.json", 9 + kind)) for kind in (True, False)]
    rows.append(Document("word " * 90, Origin("d", "d.json", 11)))  # several pieces
    return [*rows, rows[0]]  # a repeat


@pytest.fixture
def encoder(tiny_tokenizer: Any) -> Encoder:
    settings = PromptSettings(cutoff_len=200, overlong="split")
    return Encoder(tiny_tokenizer, Template.from_tokenizer(tiny_tokenizer), settings)


def test_the_store_gives_what_encoding_gives(encoder: Encoder, tmp_path: Path) -> None:
    rows = every_kind()
    plain = encoder.encode_all(rows)
    told: list[tuple[int, int | None]] = []
    for read in (False, True):
        stored, from_store = encode_cached(
            encoder, rows, tmp_path, INPUTS, lambda done, total: told.append((done, total)), min_rows=1
        )
        assert from_store is read
        assert isinstance(stored.encoded, CachedRows)
        assert list(stored.encoded) == list(plain.encoded)
        assert [type(row) for row in stored.encoded] == [type(row) for row in plain.encoded]
        assert [row.origin for row in stored.encoded] == [row.origin for row in plain.encoded]
        assert stored.skipped == plain.skipped
        assert [s.reason for s in stored.skipped] == [s.reason for s in plain.skipped]
        assert stored.notes == plain.notes
        assert stored.encoded[-1] == plain.encoded[-1]
        assert stored.encoded[1:3] == plain.encoded[1:3]
        assert told[-1] == (len(rows), len(rows))
        with pytest.raises(IndexError):
            stored.encoded[len(plain.encoded)]
    assert len(plain.encoded) > 10
    assert len(plain.skipped) == 2


def test_few_rows_are_not_stored(encoder: Encoder, tmp_path: Path) -> None:
    rows, from_store = encode_cached(encoder, every_kind(), tmp_path / "tokens", INPUTS)
    assert isinstance(rows.encoded, list)
    assert not from_store
    assert not (tmp_path / "tokens").exists()


def test_whatever_decides_the_tokens_decides_the_key(
    encoder: Encoder, tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = every_kind()
    settings, template = encoder.settings, encoder.template
    keys = [
        cache_key(encoder, rows, INPUTS),
        cache_key(encoder, rows, {"files": ["abd"]}),
        cache_key(encoder, rows[1:], INPUTS),
        cache_key(encoder, rows[::-1], INPUTS),
        cache_key(Encoder(tiny_tokenizer, template, settings.model_copy(update={"cutoff_len": 199})), rows, INPUTS),
        cache_key(Encoder(tiny_tokenizer, Template.from_tokenizer(tiny_tokenizer, "vicuna"), settings), rows, INPUTS),
        cache_key(
            Encoder(tiny_tokenizer, Template.from_tokenizer(tiny_tokenizer, default_system="Hi."), settings),
            rows,
            INPUTS,
        ),
    ]
    monkeypatch.setattr(token_cache, "_code_version", lambda: "another")
    keys.append(cache_key(encoder, rows, INPUTS))
    monkeypatch.undo()
    assert len(set(keys)) == len(keys)
    assert cache_key(encoder, every_kind(), INPUTS) == keys[0]


@pytest.mark.parametrize("name", ["ids.bin", "offsets.npy", "spans.npy", "rest.json", "manifest.json"])
@pytest.mark.parametrize("damage", ["cut", "flip", "gone"])
def test_a_damaged_store_is_made_again(encoder: Encoder, tmp_path: Path, name: str, damage: str) -> None:
    rows = every_kind()
    plain, _ = encode_cached(encoder, rows, tmp_path, INPUTS, min_rows=1)
    expected = list(plain.encoded)
    file = next(tmp_path.glob("*")) / name
    content = bytearray(file.read_bytes())
    if damage == "gone":
        file.unlink()
    else:
        content[len(content) // 2] ^= 1
        file.write_bytes(content if damage == "flip" else content[: len(content) // 2])
    again, from_store = encode_cached(encoder, rows, tmp_path, INPUTS, min_rows=1)
    assert not from_store
    assert list(again.encoded) == expected
    assert encode_cached(encoder, rows, tmp_path, INPUTS, min_rows=1)[1]


def test_a_folder_that_cannot_be_written_loses_no_row(
    encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(token_cache.np, "save", full)
    rows, from_store = encode_cached(encoder, every_kind(), tmp_path, INPUTS, min_rows=1)
    assert not from_store
    assert len(rows.encoded) > 10
    assert not list(tmp_path.iterdir())


def test_old_stores_make_room(encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_cache, "MAX_CACHES", 2)
    for number in range(4):
        encode_cached(encoder, every_kind(), tmp_path, {"files": [number]}, min_rows=1)
        for age, folder in enumerate(sorted(tmp_path.iterdir(), key=lambda path: -path.stat().st_mtime)):
            os.utime(folder, (1e9 - age, 1e9 - age))
    assert len(list(tmp_path.iterdir())) == 2


def test_a_second_training_reads_the_store_and_learns_the_same(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_cache, "MIN_ROWS", 5)
    monkeypatch.setattr(encode_cached, "__kwdefaults__", {"min_rows": 5})
    monkeypatch.setenv("SARTOR_CACHE", str(tmp_path / "cache"))
    (tmp_path / "d.csv").write_text("question,answer\n" + "".join(f"q{n},a{n}\n" for n in range(20)), encoding="utf-8")
    api.import_file(tmp_path / "d.csv", "d", dataset_dir=tmp_path / "data")
    heard: list[bool] = []

    class Hear:
        def on_rows(self, rows: Any) -> None:
            heard.append(rows.from_cache)

        def on_event(self, _: Any) -> None: ...

    losses = []
    for name in ("one", "two", "three"):
        if name == "three":
            file = tmp_path / "data" / "d.json"
            file.write_text(file.read_text(encoding="utf-8").replace('"a', '"so '), encoding="utf-8")
        run = api.train(
            model_name_or_path=str(tiny_model_dir),
            dataset="d",
            dataset_dir=str(tmp_path / "data"),
            val_size=4,
            output_dir=str(tmp_path / name),
            max_steps=3,
            use_cpu=True,
            dtype="float32",
            plot_loss=False,
            callbacks=[Hear()],
        )
        losses.append(run.results["train_loss"])
    assert heard == [False, True, False]
    assert losses[0] == losses[1]
    assert losses[2] != losses[0]


def test_the_ledger_and_the_rows_survive_a_view(encoder: Encoder, tmp_path: Path) -> None:
    rows = [chat(n, f"a{n}") for n in range(1, 9)]
    stored, _ = encode_cached(encoder, rows, tmp_path, INPUTS, min_rows=1)
    first = stored.encoded[0]
    assert replace(first) == first
    assert first.ids.dtype.name == "int32"  # type: ignore[union-attr]
    assert stored.encoded != list(stored.encoded)[:-1]
