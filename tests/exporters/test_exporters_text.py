"""llama.cpp and Ollama read text as we do: token ids for each kind of tokenizer, renderings for each named template."""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import GemmaTokenizer, PreTrainedTokenizerFast

from sartor.base.config import RunConfig
from sartor.base.errors import ExportError
from sartor.base.i18n import tr
from sartor.base.types import Message
from sartor.exporters import Source, _gguf_file
from sartor.exporters._go_template import GoTemplate
from sartor.exporters._llama_cpp import LlamaCpp
from sartor.exporters._vocabulary import PRE_TOKENIZERS, Vocabulary
from sartor.exporters.gguf import TOLERANCES
from sartor.inference.engine import Engine
from sartor.prompt.named_templates import named as named_template
from sartor.prompt.template import Template
from support.tiny import CHATML, make_model, make_tokenizer

CORPUS = [
    "It is a truth universally acknowledged, that a single man in possession of a good fortune must be in want of "
    "a wife. She'll go, we'd say; they've 1234567 pounds!",
    "凡是有财产的单身汉，必定需要娶位太太，这已经成了一条举世公认的真理。第12345章",
    "def add(a, b):\n\treturn a + b\n\n\n# 3.14   159 \r\n",
] * 3
HARD = [
    *CORPUS[:3],
    " leading",
    "trailing  ",
    "\n \n\n \t x",
    "I'LL 'tis it'S",
    "12 345 6789",
    "３４ ½ ①",
    "café naïve",
    "🙂👩‍👩‍👧 ok",
    "<|im_start|>user\nhi<|im_end|>\n",
    "a<|im_end|>b",
    "x\u00a0y\u3000z",
    "…——“”",
    "",
]
SPECIAL = ["<|im_start|>", "<|im_end|>"]


def trained(kind: str) -> Any:
    """A fast tokenizer of one kind, trained on a few lines."""
    if kind == "gemma":
        return _gemma()
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = _splitting(kind)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=480, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    return _with_template(PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>"))


def _splitting(kind: str) -> Any:
    last = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=kind in ("gpt-2", "smollm"))
    if kind == "gpt-2":
        return last
    if kind == "smollm":
        return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), last])
    pattern = next(steps[0] for steps, name in PRE_TOKENIZERS.items() if name == kind)
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"), last])


def _gemma() -> Any:
    control = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *(f"<0x{byte:02X}>" for byte in range(256))]
    learner = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    trainer = trainers.BpeTrainer(vocab_size=560, special_tokens=control, show_progress=False)
    learner.train_from_iterator([text.replace(" ", "▁") for text in CORPUS], trainer)
    import json

    model = json.loads(learner.to_str())["model"]
    return _with_template(
        GemmaTokenizer(vocab=model["vocab"], merges=[tuple(m) for m in model["merges"]], eos_token="<|im_end|>")
    )


def _with_template(tokenizer: Any) -> Any:
    tokenizer.add_special_tokens({"additional_special_tokens": SPECIAL})
    tokenizer.chat_template = CHATML
    return tokenizer


def source_of(tokenizer: Any, folder: Path) -> Source:
    size = max(tokenizer.get_vocab().values()) + 4
    model = make_model(vocab_size=size, eos_token_id=tokenizer.eos_token_id, pad_token_id=None)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    config = RunConfig.from_dict({"model_name_or_path": str(folder), "dtype": "float32", "device": "cpu"})
    return Source(Engine.from_config(config), config, None, "tiny")


REAL = pytest.mark.real


@pytest.mark.parametrize(
    "kind", ["gpt-2", pytest.param("smollm", marks=REAL), "qwen2", pytest.param("llama-bpe", marks=REAL), "gemma"]
)
def test_llama_cpp_tokenizes_as_the_tokenizer_does(kind: str, tmp_path: Path) -> None:
    tokenizer = trained(kind)
    source = source_of(tokenizer, tmp_path)
    _gguf_file.write(source, tmp_path / "tiny.gguf", "f16")
    with LlamaCpp(tmp_path / "tiny.gguf", source.engine.model.config.vocab_size) as file:
        for text in HARD:
            if text:
                assert file.tokens(text) == tokenizer.encode(text, add_special_tokens=False), text
    _gguf_file.verify(source, tmp_path / "tiny.gguf", "f16", TOLERANCES["f16"])


def gemma3(folder: Path) -> Source:
    """A tiny Gemma 3 whose tokenizer begins each text with <bos>, which its template writes too."""
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    made = _gemma()
    made.add_special_tokens({"additional_special_tokens": ["<start_of_turn>", "<end_of_turn>"]})
    backend, bos = made.backend_tokenizer, made.bos_token_id
    backend.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", bos)])
    named_tokens = {"bos_token": "<bos>", "eos_token": "<end_of_turn>", "pad_token": "<pad>", "unk_token": "<unk>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, **named_tokens)
    tokenizer.chat_template = named_template("gemma3").source
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "head_dim": 8, "sliding_window": 64}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "query_pre_attn_scalar": 8}
    size = max(tokenizer.get_vocab().values()) + 4
    ids = {"eos_token_id": tokenizer.eos_token_id, "bos_token_id": tokenizer.bos_token_id, "pad_token_id": 0}
    Gemma3ForCausalLM(Gemma3TextConfig(vocab_size=size, **sizes, **heads, **ids)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    config = RunConfig.from_dict({"model_name_or_path": str(folder), "dtype": "float32", "device": "cpu"})
    return Source(Engine.from_config(config), config, None, "tiny")


def test_gemma3_is_the_same_in_llama_cpp_which_writes_bos_as_a_token(tmp_path: Path) -> None:
    source = gemma3(tmp_path)
    assert source.engine.tokenizer("a").input_ids[0] == source.engine.tokenizer.bos_token_id
    prompt = source.engine.prompt([{"role": "user", "content": "Hi"}]).ids.tolist()
    assert source.engine.tokenizer.convert_ids_to_tokens(prompt[:2]) == ["<bos>", "<start_of_turn>"]
    _gguf_file.write(source, tmp_path / "tiny.gguf", "f16")
    with LlamaCpp(tmp_path / "tiny.gguf", source.engine.model.config.vocab_size) as file:
        assert file.render([{"role": "user", "content": "Hi"}]).startswith("<start_of_turn>user")
    assert _gguf_file.verify(source, tmp_path / "tiny.gguf", "f16", TOLERANCES["f16"]).agreement == 1


def test_a_difference_is_shown_with_whole_control_tokens() -> None:
    with pytest.raises(ExportError) as caught:
        _gguf_file._same(tr("the rendering"), "<bos><start_of_turn>user", "<start_of_turn>user")
    assert "has '<start_of_turn>us' where the model's own tokenizer has '<bos><start_of_tu'" in str(caught.value)


def test_a_wrong_pre_tokenizer_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = source_of(trained("qwen2"), tmp_path)
    monkeypatch.setitem(PRE_TOKENIZERS, next(k for k, v in PRE_TOKENIZERS.items() if v == "qwen2"), "gpt-2")
    _gguf_file.write(source, tmp_path / "tiny.gguf", "f16")
    with pytest.raises(ExportError, match="the tokens of prompt 8 differently"):
        _gguf_file.verify(source, tmp_path / "tiny.gguf", "f16", TOLERANCES["f16"])


def test_a_tokenizer_unknown_to_llama_cpp_is_refused() -> None:
    tokenizer = trained("gpt-2")
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(r"\w+"), "isolated"), pre_tokenizers.ByteLevel(use_regex=False)]
    )
    with pytest.raises(ExportError, match="does not support how"):
        Vocabulary.of(tokenizer, 600)
    with pytest.raises(ExportError, match="no row"):
        Vocabulary.of(tokenizer, 100)


FOLDER = resources.files("sartor.prompt.templates")
NAMED = sorted(file.name.removesuffix(".jinja") for file in FOLDER.iterdir() if file.name.endswith(".jinja"))


@pytest.mark.parametrize("name", NAMED)
def test_each_named_template_is_written_as_a_go_template(name: str) -> None:
    tokenizer = make_tokenizer()
    tokenizer.add_special_tokens({"bos_token": "<s>"})
    source = (FOLDER / f"{name}.jinja").read_text(encoding="utf-8")
    tokenizer.add_tokens(sorted(set(re.findall(r"<[^<>{}' ]+>|\[[A-Za-z_/]+\]", source))), special_tokens=True)
    template = Template.from_tokenizer(tokenizer, name)
    go = GoTemplate.of(template, skip="<s>")
    talk = [Message("system", "S"), Message("user", "a"), Message("assistant", "b"), Message("user", "c")]
    assert go.render(talk) == template.render(talk, generation=True).removeprefix("<s>")
    assert go.source().count("{{ if") + go.source().count("{{ range") == go.source().count("{{ end }}")


def test_a_template_that_puts_texts_elsewhere_is_refused() -> None:
    reverse = (
        "{% for m in messages %}{{ '<|im_start|>' + m['role'] + (' 1st' if loop.first and messages|length == 5 else '')"
        " + '\\n' + m['content'] + '<|im_end|>\\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
    )
    with pytest.raises(ExportError, match="cannot be written as an Ollama"):
        GoTemplate.of(Template.from_tokenizer(make_tokenizer(reverse)))


def test_the_go_template_of_chatml_by_hand() -> None:
    go = GoTemplate.of(Template.from_tokenizer(make_tokenizer()))
    assert go.before_system == "<|im_start|>system\n"
    assert go.without_system == "<|im_start|>user\n"
    assert go.before_answer == "<|im_end|>\n<|im_start|>assistant\n"
    assert go.end == "<|im_end|>\n<|im_start|>assistant\n"
    assert '{{ if eq .Role "user" }}' in go.source()
