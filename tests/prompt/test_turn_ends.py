"""Where a template leaves an answer open, it is learned with the end that the model's own files declare."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sartor.base.errors import PromptError
from sartor.base.settings import PromptSettings
from sartor.base.types import Demonstration, Message, Origin, TokenSequence, ToolCall
from sartor.prompt.encode import Encoder
from sartor.prompt.messages import to_jinja
from sartor.prompt.template import Template
from support.inference_view import learned
from support.public_templates import FILES, TOOL
from support.vendor_templates import GLM, GLM_ENDS, HUNYUAN, OPEN, vendor_tokenizer

QUESTION, ANSWER = Message("user", "Who wrote Emma?"), Message("assistant", "Jane Austen.")
CALL = Message("assistant", "", (ToolCall("find", {"title": "Emma", "year": 1815}),))
FOUR = (QUESTION, ANSWER, QUESTION, ANSWER)


def encoder_of(tokenizer: Any, **settings: Any) -> Encoder:
    return Encoder(tokenizer, Template.from_tokenizer(tokenizer), PromptSettings(**settings))


def encoded(encoder: Encoder, messages: tuple[Message, ...], *tools: Any) -> tuple[TokenSequence, list[str]]:
    sequences = encoder.sequences(Demonstration(messages, Origin("a", "a", 1), tools))
    texts = [text for _, text in learned(encoder.tokenizer, sequences)]
    assert isinstance(sequences[-1], TokenSequence)
    return sequences[-1], texts


@pytest.mark.parametrize(
    ("source", "ends", "end"),
    [
        (GLM, GLM_ENDS, "<|user|>"),
        (HUNYUAN, ("<|endoftext|>", "<｜hy_place▁holder▁no▁2｜>"), "<｜hy_place▁holder▁no▁2｜>"),
        (OPEN, ("<|endoftext|>",), "<|endoftext|>"),
        (OPEN, ("<|endoftext|>", "</s>"), "</s>"),
    ],
)
def test_an_open_answer_is_learned_with_its_declared_end(
    source: str, ends: tuple[str, ...], end: str, tmp_path: Path
) -> None:
    encoder = encoder_of(vendor_tokenizer(source, ends, tmp_path))
    messages = (QUESTION, ANSWER) if source is OPEN else FOUR
    sequence, texts = encoded(encoder, messages)
    assert all(text.endswith(f"Jane Austen.{end}") for text in texts)
    assert len(texts) == len(messages) // 2
    dicts = [to_jinja(message) for message in messages]
    theirs = encoder.tokenizer.apply_chat_template(dicts, return_dict=False)
    assert sequence.ids.tolist() == [*theirs, encoder.tokenizer.convert_tokens_to_ids(end)]
    assert {encoder.tokenizer.convert_tokens_to_ids(token) for token in ends} <= set(encoder.stop_ids)
    assert [note.code for note in encoder.template.notes] == ["end-added"]
    assert end in str(encoder.template.notes[0])
    prompt = encoder.prompt(messages[:-1]).ids.tolist()
    assert sequence.ids.tolist()[: len(prompt)] == prompt


def test_a_call_is_ended_by_what_comes_after_it(tmp_path: Path) -> None:
    encoder = encoder_of(vendor_tokenizer(GLM, GLM_ENDS, tmp_path))
    for messages in ((QUESTION, CALL), (QUESTION, CALL, Message("tool", "1815"), ANSWER, QUESTION, CALL)):
        _, texts = encoded(encoder, messages, TOOL)
        assert texts[0].endswith("</tool_call><|observation|>")
        assert texts[-1].endswith("</tool_call><|observation|>")
    assert encoder.template.ends == ("<|user|>", "<|observation|>")


def test_an_earlier_answer_with_another_token_after_it_is_refused_not_learned_with_that(tmp_path: Path) -> None:
    encoder = encoder_of(vendor_tokenizer(OPEN, ("<|endoftext|>",), tmp_path))
    with pytest.raises(PromptError, match="no control token ends message 2"):
        encoder.template.segments(FOUR)


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"eos_token_id": "x"}', '{"eos_token_id": [true, 1e9, 999999]}', "\xff", ""]
)
def test_a_file_that_declares_nothing_usable_changes_nothing(content: str, tmp_path: Path) -> None:
    tokenizer = vendor_tokenizer(GLM, GLM_ENDS, tmp_path)
    (tmp_path / "generation_config.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(PromptError, match="no control token ends message 2"):
        Template.from_tokenizer(tokenizer)
    eos = tokenizer.convert_tokens_to_ids("<|user|>")
    (tmp_path / "config.json").write_text(json.dumps({"eos_token_id": eos}), encoding="utf-8")
    assert Template.from_tokenizer(tokenizer).end == "<|user|>"


def test_without_files_an_open_answer_is_refused() -> None:
    for source in (GLM, OPEN):
        with pytest.raises(PromptError, match="no control token ends message 2"):
            Template.from_tokenizer(vendor_tokenizer(source))


def test_a_template_that_ends_its_answers_is_left_as_it_is(tmp_path: Path) -> None:
    source = OPEN.replace("{{ m.content }}", "{{ m.content }}<|end|>")
    encoder = encoder_of(vendor_tokenizer(source, ("<|endoftext|>",), tmp_path))
    _, texts = encoded(encoder, FOUR)
    assert texts == ["Jane Austen.<|end|>"] * 2
    assert encoder.template.notes == ()
    assert len(encoder.stop_ids) == 3, "the template's, the declared one, and the tokenizer's"


def test_an_answer_stops_at_the_end_of_a_final_message_and_not_of_a_thought() -> None:
    encoder = encoder_of(vendor_tokenizer(FILES["gptoss"].read_text(encoding="utf-8")), history="as_rendered")
    _, texts = encoded(encoder, FOUR)
    assert [text.partition("Austen.")[2] for text in texts] == ["<|end|>", "<|return|>"]
    ids = encoder.codec.ids
    thought = ids("<|channel|>analysis<|message|>final<|end|>")
    assert not encoder.ends_turn(thought)
    assert not encoder.ends_turn([*thought, *ids("<|start|>assistant<|channel|>commentary<|message|>Wait.<|end|>")])
    assert not encoder.ends_turn([*thought, *ids("<|start|>assistant<|channel|>final<|message|>Hi.")])
    assert encoder.ends_turn([*thought, *ids("<|start|>assistant<|channel|>final<|message|>Hi.<|end|>")])
    assert encoder.ends_turn(ids("<|channel|>final<|message|>Hi.<|end|>"))
    assert encoder.ends_turn(ids("<|channel|>final<|message|>Hi.<|return|>"))
    assert encoder.ends_turn(ids(" to=functions.find<|channel|>commentary json<|message|>{}<|call|>"))


def test_another_end_of_earlier_answers_stops_generation() -> None:
    source = (
        "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{{ '</s>' if loop.last else '<|end|>' }}{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    encoder = encoder_of(vendor_tokenizer(source))
    assert encoder.template.ends == ("</s>", "<|end|>")


def test_a_template_that_reads_lists_of_parts_gets_them() -> None:
    for name in ("idefics3", "smolvlm", "llava_next"):
        encoder = encoder_of(vendor_tokenizer(FILES[name].read_text(encoding="utf-8")))
        assert encoder.template.renderer.form.content_parts
        _, texts = encoded(encoder, (Message("system", "Be brief."), *FOUR))
        assert all("Jane Austen." in text and "Emma" not in text for text in texts)
    assert not encoder_of(
        vendor_tokenizer(FILES["qwen3"].read_text(encoding="utf-8"))
    ).template.renderer.form.content_parts
