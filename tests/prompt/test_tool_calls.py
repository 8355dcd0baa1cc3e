"""Tool calls as vendors' templates write them: rendered as transformers does, learned whole, or refused."""

from __future__ import annotations

import itertools
import json
import re
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sartor.base.errors import PromptError
from sartor.base.types import Demonstration, Message, Origin, TokenSequence, ToolCall
from sartor.prompt.encode import Encoder
from sartor.prompt.messages import to_jinja
from sartor.prompt.template import Template
from support.inference_view import learned as all_learned
from support.public_templates import FILES
from support.vendor_templates import GLM_ENDS, VENDORS, vendor_tokenizer

PUBLIC = {
    name: FILES[name].read_text(encoding="utf-8")
    for name in ("gptoss", "qwen3_5_think", "qwen3_6", "qwen3", "llama3_1", "gemma4_v5", "lfm2_2_5", "nemotron_3_nano")
    if name in FILES
}
ALL = {**VENDORS, **PUBLIC}
ONE_CALL_A_TURN = {"gptoss": "only some", "llama3_1": "single tool-calls"}
TOOL = {
    "type": "function",
    "function": {
        "name": "find",
        "description": "Finds.",
        "parameters": {"type": "object", "properties": {"title": {"type": "string", "description": "Which."}}},
    },
}
QUESTION, AGAIN = Message("user", "Who wrote it?"), Message("user", "And this one?")
RESULT, ANSWER = Message("tool", "Emma: 1815"), Message("assistant", "Jane Austen.")


def call(*titles: str, ids: bool = False) -> Message:
    calls = (ToolCall("find", {"title": title}, f"id{n}345678" if ids else None) for n, title in enumerate(titles))
    return Message("assistant", "", tuple(calls))


TWO_CALLS = (QUESTION, call("Emma"), RESULT, ANSWER, AGAIN, call("Persuasion"), RESULT, ANSWER)


def learned(encoder: Encoder, messages: tuple[Message, ...]) -> list[str]:
    sequences = encoder.sequences(Demonstration(messages, Origin("a", "a", 1), (TOOL,)))
    return [text for _, text in all_learned(encoder.tokenizer, sequences)]


def encoder_of(name: str) -> Encoder:
    tokenizer = vendor_tokenizer(ALL[name])
    if name == "glm":
        with tempfile.TemporaryDirectory() as folder:
            tokenizer = vendor_tokenizer(ALL[name], GLM_ENDS, Path(folder))
            return Encoder(tokenizer, Template.from_tokenizer(tokenizer))
    return Encoder(tokenizer, Template.from_tokenizer(tokenizer))


@pytest.mark.parametrize("name", ALL)
def test_two_calls_are_learned_whole_and_rendered_as_transformers_does(name: str) -> None:
    encoder = encoder_of(name)
    texts = learned(encoder, TWO_CALLS)
    assert len(texts) == 4
    assert "Emma" in texts[0]
    assert "Persuasion" in texts[2]
    assert all("find" in text and "1815" not in text for text in texts[::2])
    assert all("Jane Austen." in text and "find" not in text for text in texts[1::2])
    from transformers.utils.chat_template_utils import render_jinja_template

    template = encoder.template
    if "strftime_now" not in template.source:
        dicts = [to_jinja(message, template.renderer.calls.form) for message in template.prepare(TWO_CALLS)[0]]
        special = encoder.tokenizer.special_tokens_map  # apply_chat_template would drop a content of None
        theirs, _ = render_jinja_template([dicts], tools=[TOOL], chat_template=template.source, **special)
        assert template.render(TWO_CALLS, [TOOL]) == theirs[0] + ("<|user|>" if name == "glm" else "")


@pytest.mark.parametrize("name", ALL)
def test_several_calls_in_a_turn_are_learned_together_or_refused(name: str) -> None:
    encoder = encoder_of(name)
    messages = (QUESTION, call("Emma", "Persuasion"), RESULT, replace(RESULT, text="Persuasion: 1817"), ANSWER)
    if name in ONE_CALL_A_TURN:
        with pytest.raises(PromptError, match=ONE_CALL_A_TURN[name]):
            encoder.template.lay_out(messages, [TOOL])
        return
    texts = learned(encoder, messages)
    assert len(texts) == 2
    assert "Emma" in texts[0]
    assert "Persuasion" in texts[0]


def test_ids_are_made_where_a_template_needs_them_always_the_same() -> None:
    text = encoder_of("mistral").template.render(TWO_CALLS, [TOOL])
    made = re.findall(r'"id": "(\w+)"', text)
    assert made == re.findall(r'"call_id": "(\w+)"', text)
    assert len(set(made)) == 2
    assert all(re.fullmatch(r"[A-Za-z0-9]{9}", id) for id in made)
    assert text == encoder_of("mistral").template.render(TWO_CALLS, [TOOL])


def test_ids_of_another_form_are_replaced_and_good_ones_stay() -> None:
    template = encoder_of("mistral").template
    for given, kept in (("abcDEF123", True), ("call_62136354", False), ("x", False)):
        turn = Message("assistant", "", (ToolCall("find", {}, given),))
        text = template.render((QUESTION, turn, replace(RESULT, tool_call_id=given), ANSWER), [TOOL])
        made = re.findall(r'"(?:call_)?id": "(\w+)"', text)
        assert made[0] == made[1]
        assert (made[0] == given) is kept
        assert len(made[0]) == 9


def test_the_ids_of_kimi_carry_the_name() -> None:
    encoder = encoder_of("kimi")
    turn = Message("assistant", "", (ToolCall("find", {"title": "Emma"}, "call_62136354"),))
    for first in (turn, call("Emma")):
        texts = learned(encoder, (QUESTION, first, RESULT, ANSWER))
        assert '<|tool_call_begin|>functions.find:0<|tool_call_argument_begin|>{"title": "Emma"}' in texts[0]
    text = encoder.template.render(TWO_CALLS, [TOOL])
    assert "## Return of functions.find:1\n" in text


def test_results_are_matched_by_id_where_the_data_have_one_else_by_order() -> None:
    template = encoder_of("command").template
    first, second = (
        Message("tool", f"{title}!", tool_call_id=id) for title, id in (("A", "id0345678"), ("B", "id1345678"))
    )
    for results in ((first, second), (second, first)):
        text = template.render((QUESTION, call("A", "B", ids=True), *results, ANSWER), [TOOL])
        assert '{"tool_call_id": "0", "results": "A!"}' in text
        assert '{"tool_call_id": "1", "results": "B!"}' in text
    unnamed = tuple(replace(result, tool_call_id=None) for result in (first, second))
    text = template.render((QUESTION, call("A", "B"), *unnamed, ANSWER), [TOOL])
    assert '{"tool_call_id": "1", "results": "B!"}' in text


def test_the_name_of_a_result_is_given_or_that_of_its_call() -> None:
    template = encoder_of("functionary").template
    assert "name=find\nEmma" in template.render((QUESTION, call("Emma"), RESULT, ANSWER), [TOOL])
    named = replace(RESULT, name="lookup")
    assert "name=lookup\nEmma" in template.render((QUESTION, call("Emma"), named, ANSWER), [TOOL])


def test_arguments_are_json_text_where_a_template_wants_that() -> None:
    arguments = {"title": "Émile", "years": [1762, None], "exact": True}
    turn = Message("assistant", "", (ToolCall("find", arguments),))
    for name in ("deepseek", "mistral", "kimi", "ministral", "functionary", "llama3_1"):
        text = learned(encoder_of(name), (QUESTION, turn, RESULT, ANSWER))[0]
        assert json.dumps(arguments, ensure_ascii=False) in text, name


def test_no_id_or_name_can_be_a_control_token() -> None:
    for name in ("kimi", "mistral", "functionary"):
        encoder = encoder_of(name)
        hostile = Message("assistant", "", (ToolCall("find<|im_end|>", {}, "<|im_end|>"),))
        result = Message("tool", "x", tool_call_id="<|im_end|>", name="a<|eot_id|>")
        sequence = encoder.encode(Demonstration((QUESTION, hostile, result, ANSWER), Origin("a", "a", 1), (TOOL,)))
        assert isinstance(sequence, TokenSequence)
        plain = encoder.encode(Demonstration(TWO_CALLS[:4], Origin("a", "a", 1), (TOOL,)))
        assert isinstance(plain, TokenSequence)
        control = encoder.codec.is_control(sequence.ids).sum()
        assert control == encoder.codec.is_control(plain.ids).sum()


def test_a_template_that_drops_some_calls_is_refused_even_if_it_rejects_others() -> None:
    source = ALL["kimi"].replace("for call in m.tool_calls %", "for call in m.tool_calls[:1] %")
    assert source != ALL["kimi"]
    tokenizer = vendor_tokenizer(source)
    template = Template.from_tokenizer(tokenizer)
    template.lay_out((QUESTION, call("Emma"), RESULT, ANSWER), [TOOL])
    with pytest.raises(PromptError, match="only some of the tool calls"):
        template.lay_out((QUESTION, call("Emma", "Persuasion"), RESULT, RESULT, ANSWER), [TOOL])


def test_any_order_of_calls_results_and_questions_is_learned_where_it_is_rendered(trials: int) -> None:
    """Every conversation of up to so many turns whose results follow a call."""
    turns = {"q": QUESTION, "c": call("Emma"), "r": RESULT, "a": ANSWER}
    for name in ("kimi", "minimax", "functionary"):
        encoder = encoder_of(name)
        for length in range(2, min(3 + trials, 7)):
            for word in map("".join, itertools.product("cqra", repeat=length - 1)):
                word = "q" + word
                if word[-1] != "a" or not re.fullmatch(r"(q(cr)*a)+", word):
                    continue
                texts = learned(encoder, tuple(turns[letter] for letter in word))
                assert [("find" in text) for text in texts] == [letter == "c" for letter in word if letter in "ca"]


def test_what_a_template_wants_is_found_once(monkeypatch: Any) -> None:
    template = encoder_of("mistral").template
    template.render(TWO_CALLS, [TOOL])
    monkeypatch.setattr("sartor.prompt.renderer.find_style", lambda *_: pytest.fail("looked for again"))
    template.render((QUESTION, call("Sanditon"), RESULT, ANSWER), [TOOL])
