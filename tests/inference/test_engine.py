"""The engine: batched equals one at a time, base and tuned are really two, text is never cut inside a character."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sartor.base.errors import ModelError
from sartor.base.settings import GenerationSettings, MethodSettings
from sartor.base.types import Origin, TokenSequence
from sartor.inference.engine import Engine
from sartor.model.load import adapt

PROMPTS = [
    [{"role": "user", "content": text}] for text in ("Who?", "伊丽莎白", "a much longer question than these", "?")
]


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory, tiny_model_dir: Path) -> Path:
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("adapter")
    model = AutoModelForCausalLM.from_pretrained(tiny_model_dir, dtype=torch.float32)
    tuned = adapt(model, MethodSettings(lora_rank=4))
    torch.manual_seed(3)
    with torch.no_grad():
        for name, parameter in tuned.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.5)
    tuned.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def engine(tiny_model_dir: Path, adapter: Path) -> Engine:
    return Engine.load(str(tiny_model_dir), adapter, dtype="float32", device="cpu")


def greedy(engine: Engine, prompt: list[int], count: int) -> list[int]:
    """The definition: the whole text through the model again for each token."""
    ids = list(prompt)
    for _ in range(count):
        with torch.no_grad():
            logits = engine.model(torch.tensor([ids])).logits[0, -1]
        ids.append(int(logits.argmax()))
        if ids[-1] in engine.encoder.stop_ids:
            break
    return ids[len(prompt) :]


def test_batches_with_padding_and_a_cache_answer_as_the_definition(engine: Engine) -> None:
    answers = engine.generate(PROMPTS, GenerationSettings(max_new_tokens=80))
    for prompt, answer in zip(PROMPTS, answers, strict=True):
        assert list(answer.ids) == greedy(engine, engine.prompt(prompt).ids.tolist(), 80)
        assert answer.stop_reason == ("stop" if answer.ids[-1] in engine.encoder.stop_ids else "length")


def test_sampled_rows_do_not_depend_on_their_batch(engine: Engine) -> None:
    settings = GenerationSettings(max_new_tokens=12, do_sample=True, temperature=1.0, top_p=0.95, top_k=50)
    together = engine.generate(PROMPTS, settings, seed=5)
    for number, prompt in enumerate(PROMPTS):
        (alone,) = engine.generate([prompt], settings, seed=5, numbers=[number])
        assert alone.ids == together[number].ids
    assert [a.ids for a in engine.generate(PROMPTS, settings, seed=6)] != [a.ids for a in together]


def test_base_and_tuned_are_two_and_the_base_comes_back_to_the_bit(engine: Engine, tiny_model_dir: Path) -> None:
    plain = Engine.load(str(tiny_model_dir), dtype="float32", device="cpu")
    marks = engine.fingerprint("base"), engine.fingerprint("tuned"), engine.fingerprint("base")
    assert marks[0] == marks[2] == plain.fingerprint("base") != marks[1]
    settings = GenerationSettings(max_new_tokens=8)
    assert [a.ids for a in engine.generate(PROMPTS, settings, weights="base")] == [
        a.ids for a in plain.generate(PROMPTS, settings)
    ]
    assert engine.generate(PROMPTS, settings, weights="tuned")[0].fingerprint == marks[1]


def test_merged_weights_answer_as_the_adapter_of_peft(engine: Engine, tiny_model_dir: Path, adapter: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(tiny_model_dir, dtype=torch.float32), str(adapter)
    )
    ids = torch.tensor([engine.prompt(PROMPTS[2]).ids.tolist()])
    engine.weights.use("tuned")
    with torch.no_grad():
        torch.testing.assert_close(engine.model(ids).logits, model(ids).logits, rtol=1e-4, atol=1e-5)


def test_losses_are_the_models_own(engine: Engine) -> None:
    random = np.random.default_rng(0)
    rows = [
        TokenSequence(random.integers(0, 255, n).astype(np.int32), ((n // 2, n),), Origin("d", "d.json", n))
        for n in (9, 30, 17)
    ]
    for row, found in zip(rows, engine.losses(rows, weights="base"), strict=True):
        labels = torch.tensor(row.labels)[None]
        with torch.no_grad():
            expected = engine.model(torch.tensor(row.ids)[None], labels=labels.long()).loss
        assert found.id == row.origin.id if row.origin else False
        assert found.per_token == pytest.approx(float(expected), rel=1e-5)


def test_a_stream_is_the_answer_in_whole_characters(engine: Engine) -> None:
    settings = GenerationSettings(max_new_tokens=40)
    pieces: list[str] = []
    stream = engine.stream(PROMPTS[1], settings)
    while True:
        try:
            pieces.append(next(stream))
        except StopIteration as end:
            answer = end.value
            break
    assert answer.ids == engine.generate([PROMPTS[1]], settings)[0].ids
    assert "".join(pieces).rstrip("\ufffd") == answer.text


def test_stop_strings_end_the_answer_before_them(engine: Engine) -> None:
    drawn = {"max_new_tokens": 60, "do_sample": True, "temperature": 1.0}
    whole = engine.chat(PROMPTS[2], GenerationSettings(**drawn)).text
    stop = next(whole[i : i + 2] for i in range(3, len(whole)) if len(whole[i : i + 2].encode()) == 2)
    settings = GenerationSettings(**drawn, stop=(stop,))
    cut = engine.chat(PROMPTS[2], settings)
    assert cut.text == whole[: whole.index(stop)]
    assert cut.stop_reason == "stop"
    assert "".join(engine.stream(PROMPTS[2], settings)) == cut.text


def test_adapters_that_do_not_fit_or_are_damaged_are_named(tiny_model_dir: Path, adapter: Path, tmp_path: Path) -> None:
    import shutil

    from support.tiny import make_model, make_tokenizer

    other = tmp_path / "other"
    make_model(hidden_size=64, intermediate_size=96).save_pretrained(other)
    make_tokenizer().save_pretrained(other)
    with pytest.raises(ModelError, match="does not match"):
        Engine.load(str(other), adapter, dtype="float32")
    half = tmp_path / "half"
    shutil.copytree(adapter, half)
    weights = half / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:200])
    with pytest.raises(ModelError, match="damaged"):
        Engine.load(str(tiny_model_dir), half, dtype="float32")
    with pytest.raises(ModelError, match="no such folder"):
        Engine.load(str(tiny_model_dir), tmp_path / "nowhere", dtype="float32")
    with pytest.raises(ModelError, match="contains no adapter"):
        Engine.load(str(tiny_model_dir), other, dtype="float32")


def test_a_tokenizer_that_does_not_match_is_refused(tiny_model_dir: Path, adapter: Path, tmp_path: Path) -> None:
    import shutil

    from tokenizers import Tokenizer

    def changed(folder: Path, change: Callable[[dict[str, Any]], object]) -> Path:
        """The tiny tokenizer's file with another vocabulary, put into a copy of the folder."""
        shutil.copytree(folder, made := tmp_path / f"{folder.name}-{len(list(tmp_path.iterdir()))}")
        value = json.loads((tiny_model_dir / "tokenizer.json").read_text(encoding="utf-8"))
        change(value)
        (made / "tokenizer.json").write_text(json.dumps(value), encoding="utf-8")
        return made

    def swap(value: dict[str, Any]) -> None:
        vocab = value["model"]["vocab"]
        one, two = list(vocab)[40:42]
        vocab[one], vocab[two] = vocab[two], vocab[one]

    size = Tokenizer.from_file(str(tiny_model_dir / "tokenizer.json")).get_vocab_size()
    more = {
        "id": size + 5000,
        "content": "<more>",
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": True,
    }
    wide = changed(
        tiny_model_dir, lambda value: [value["model"]["vocab"].update({f"w{n}": n}) for n in range(size, size + 5000)]
    )
    with pytest.raises(ModelError, match="does not match the model"):
        Engine.load(str(wide), dtype="float32")
    with pytest.raises(ModelError, match="another tokenizer"):
        Engine.load(str(tiny_model_dir), changed(adapter, swap), dtype="float32")
    Engine.load(
        str(tiny_model_dir), changed(adapter, lambda value: value["added_tokens"].append(more)), dtype="float32"
    )
    damaged = changed(adapter, swap)
    (damaged / "tokenizer.json").write_text("{", encoding="utf-8")
    with pytest.raises(ModelError, match="damaged"):
        Engine.load(str(tiny_model_dir), damaged, dtype="float32")


def test_a_model_that_is_not_there_says_what_would_do(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"config\.json"):
        Engine.load(str(tmp_path))
    with pytest.raises(ModelError, match="smollm2-135m"):
        Engine.load("nobody/no-such-model")


def test_an_answer_keeps_reasoning_apart(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    row: Any = engine.generate([PROMPTS[0]], GenerationSettings(max_new_tokens=2))[0]
    assert row.reasoning is None
    monkeypatch.setattr(engine, "text_of", lambda ids, **_: "<think>\nhm\n</think>\n\nDarcy.")
    answer = engine.generate([PROMPTS[0]], GenerationSettings(max_new_tokens=2))[0]
    assert (answer.reasoning, answer.text) == ("hm", "Darcy.")
