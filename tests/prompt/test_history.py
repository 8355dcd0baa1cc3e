"""Several turns: every answer is learned after the prompt that inference sees, as the vendor writes it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sartor.base.settings import PromptSettings
from sartor.base.types import Demonstration, Feedback, Message, Origin, Pair, Preference, Skipped, UnpairedSequence
from sartor.prompt import template_environment
from sartor.prompt.encode import Encoder
from sartor.prompt.named_templates import named, template_names
from sartor.prompt.template import Template
from support.byte_tokenizers import byte_tokenizer
from support.inference_view import inference_view, learned
from support.public_templates import CALL, CLOSED, FILES, REFUSED, TOOL, template_of
from support.reasoning_columns import ReasoningColumns, reasoning_columns
from support.vendor_templates import VENDORS, vendor_tokenizer

ORIGIN = Origin("made", "made.json", 1)


def user(text: str) -> Message:
    return Message("user", text)


def answer(text: str, reasoning: str | None = None, *, train: bool = True) -> Message:
    return Message("assistant", text, reasoning=reasoning, train=train)


THREE = (user("q1"), answer("a1", "r1"), user("q2"), answer("a2", "r2"), user("q3"), answer("a3", "r3"))
PLAIN = tuple(replace(message, reasoning=None) for message in THREE)
MIXED = (*THREE[:2], *PLAIN[2:4], *THREE[4:])
CALLS = (
    user("q1"),
    replace(CALL, reasoning="rc"),
    Message("tool", "1815"),
    answer("a1", "r1"),
    user("q2"),
    replace(CALL, reasoning="rd", tool_calls=(replace(CALL.tool_calls[0], id="bcdefghij"),)),
    Message("tool", "1816"),
    answer("a2", "r2"),
)
CONVERSATIONS = {"reasoning": THREE, "plain": PLAIN, "mixed": MIXED}

ONE_SEQUENCE = {"qwen2_5", "llama3_1", "lfm2", "phi3", "gemma", "gemma4_v2", "cohere", "qwen3_8", "muse_glimmer"}
SPLIT = {"qwen3", "qwen3_5_think", "qwen3_6", "gptoss", "gemma4_v5", "nemotron_3_nano", "lfm2_2_5", "deepseekv3"}

pytestmark = pytest.mark.skipif(not FILES, reason="TRL is not installed")


def encoder_of(name: str, **options: Any) -> tuple[Any, Encoder]:
    tokenizer, template = template_of(name)
    return tokenizer, Encoder(tokenizer, template, PromptSettings(**{"cutoff_len": 100_000, **options}))


def example(messages: tuple[Message, ...], *tools: Any) -> Demonstration:
    return Demonstration(messages, ORIGIN, tools)


def check(name: str, tokenizer: Any, encoder: Encoder, messages: tuple[Message, ...], tools: tuple[Any, ...]) -> None:
    """Each answer is learned once, after its true prompt, as the template or the model itself writes it."""
    found = learned(tokenizer, encoder.sequences(Demonstration(messages, ORIGIN, tools)))
    if encoder.template.drops_reasoning:
        messages = tuple(replace(message, reasoning=None) for message in messages)
    answers = [number for number, message in enumerate(messages) if message.role == "assistant"]
    for number in answers:
        prompt, whole = inference_view(tokenizer, encoder.template, messages, number, tools)
        if whole.startswith(prompt):
            expected = whole[len(prompt) :]
        elif name not in CLOSED:  # it leaves out the reasoning of a call once the answer to it is there
            tail = prompt[prompt.rindex(messages[number - 1].text) :]
            expected = whole[whole.rindex(tail) + len(tail) :]
        else:  # the prompt opens a block that the template does not go on with
            rest = whole[len(prompt.removesuffix("\n").removesuffix("<think>")) :].removeprefix("<think></think>")
            closed = CLOSED[name].rstrip() if rest.startswith("\n") else CLOSED[name]
            expected = (messages[number].reasoning or "") + closed + rest
        matching = [text for before, text in found if before == prompt and expected.startswith(text)]
        assert len(matching) == 1, (number, prompt, expected, found)
        rest = expected.removeprefix(matching[0]).strip()
        assert rest in ("", "</s>"), "only what follows the end token is left out"
    assert len(found) == len(answers)


@pytest.mark.parametrize("conversation", CONVERSATIONS)
@pytest.mark.parametrize("name", [name for name in FILES if name not in REFUSED])
def test_each_answer_is_learned_after_its_own_prompt(name: str, conversation: str) -> None:
    check(name, *encoder_of(name), CONVERSATIONS[conversation], ())


@pytest.mark.parametrize("reasoning", [True, False])
@pytest.mark.parametrize("name", [name for name in FILES if name not in REFUSED])
def test_calls_and_what_follows_them_too(name: str, reasoning: bool) -> None:
    tokenizer, encoder = encoder_of(name)
    messages = CALLS if reasoning else tuple(replace(message, reasoning=None) for message in CALLS)
    if isinstance(encoder.sequences(example(messages, TOOL))[0], Skipped):
        pytest.skip("the template does not render this conversation")
    check(name, tokenizer, encoder, messages, (TOOL,))


@pytest.mark.parametrize("conversation", CONVERSATIONS)
@pytest.mark.parametrize("name", [name for name in VENDORS if name != "glm"])
def test_other_vendors_too(name: str, conversation: str) -> None:
    tokenizer = vendor_tokenizer(VENDORS[name])
    encoder = Encoder(tokenizer, Template.from_tokenizer(tokenizer), PromptSettings(cutoff_len=100_000))
    check(name, tokenizer, encoder, CONVERSATIONS[conversation], ())
    calls = tuple(replace(message, reasoning=None) for message in CALLS)
    check(name, tokenizer, encoder, calls, (TOOL,))


@pytest.mark.parametrize("name", template_names())
@pytest.mark.parametrize("thinking", [None, True, False])
def test_named_templates_too(name: str, thinking: bool | None) -> None:
    control = (*named(name).control, "<|im_start|>", "<|im_end|>")
    template = Template.from_tokenizer(byte_tokenizer(control), name, enable_thinking=thinking)
    tokenizer = byte_tokenizer(control, template.source)
    for conversation in CONVERSATIONS.values():
        check(name, tokenizer, Encoder(tokenizer, template, PromptSettings(cutoff_len=9999)), conversation, ())


def test_only_templates_that_render_history_otherwise_need_several_sequences() -> None:
    sizes = {name: len(encoder_of(name)[1].sequences(example(THREE))) for name in ONE_SEQUENCE | SPLIT}
    assert {name for name, size in sizes.items() if size == 1} == ONE_SEQUENCE
    assert {name for name, size in sizes.items() if size == 3} == SPLIT


def test_a_call_and_the_answer_to_it_share_a_sequence() -> None:
    """Qwen3 keeps reasoning since the last question: that is seen by rendering, not assumed."""
    for name in ("qwen3", "qwen3_5_think", "lfm2_2_5", "nemotron_3_nano", "gemma4_v5"):
        tokenizer, encoder = encoder_of(name)
        sequences = encoder.sequences(example(CALLS, TOOL))
        assert [len(sequence.label_spans) for sequence in sequences] == [2, 2], name
        texts = [text for _, text in learned(tokenizer, sequences)]
        assert [next(r for r in ("rc", "r1", "rd", "r2") if r in text) for text in texts] == ["rc", "r1", "rd", "r2"]


TEXTS = st.sampled_from(
    ["a", "b\n\nc ", " d", "</think>", "<think>e</think>f", "<|im_end|>", "中文", "<tool_call>", "x" * 40]
)


@pytest.mark.parametrize("name", ["qwen3", "qwen3_5_think", "gptoss", "deepseek_r1_distill", "lfm2_2_5", "qwen2_5"])
@given(turns=st.lists(st.tuples(TEXTS, TEXTS, st.none() | st.sampled_from(["r", "s\n\nt"])), min_size=1, max_size=4))
@settings(max_examples=25, deadline=None)
def test_whatever_the_texts_are(name: str, turns: list[tuple[str, str, str | None]]) -> None:
    """Texts that a template inspects: nothing is learned after another prompt than that of inference."""
    tokenizer, encoder = encoder_of(name)
    messages = tuple(m for ask, say, why in turns for m in (user(ask), answer(say, why)))
    outcomes = encoder.sequences(example(messages))
    if isinstance(outcomes[0], Skipped):
        assert outcomes[0].code in ("not-renderable", "control-text")
        return
    prompts = [
        tokenizer.decode(encoder.prompt(messages[:number]).ids.tolist())
        for number, message in enumerate(messages)
        if message.role == "assistant"
    ]
    assert sorted(before for before, _ in learned(tokenizer, outcomes)) == sorted(prompts)
    said = [text for _, text in learned(tokenizer, outcomes)]
    assert len(said) == len(turns)


def test_the_settings_last_and_as_rendered() -> None:
    tokenizer, encoder = encoder_of("qwen3", history="last")
    assert [text for _, text in learned(tokenizer, encoder.sequences(example(THREE)))] == [
        "<think>\nr3\n</think>\n\na3<|im_end|>"
    ]
    masked = encoder_of("qwen3", mask_history=True)[1]
    assert masked.sequences(example(THREE)) == encoder.sequences(example(THREE))
    tokenizer, encoder = encoder_of("qwen3", history="as_rendered")
    (only,) = encoder.sequences(example(THREE))
    assert [text for _, text in learned(tokenizer, [only])] == [
        "a1<|im_end|>",
        "a2<|im_end|>",
        "<think>\nr3\n</think>\n\na3<|im_end|>",
    ]
    assert [note.code for note in encoder.take_notes()] == ["reasoning-left-out"], "it is not learned, and that is told"


def test_an_answer_that_is_not_trained_on_has_no_sequence() -> None:
    tokenizer, encoder = encoder_of("qwen3")
    messages = (*THREE[:3], answer("a2", "r2", train=False), *THREE[4:])
    texts = [text for _, text in learned(tokenizer, encoder.sequences(example(messages)))]
    assert ["a1" in texts[0], "a3" in texts[1], len(texts)] == [True, True, 2]


def test_each_prompt_is_trained_on_once() -> None:
    for name in ("qwen3", "qwen3_5_think", "qwen2_5"):
        tokenizer, encoder = encoder_of(name, train_on_prompt=True)
        whole = "".join(text for _, text in learned(tokenizer, encoder.sequences(example(THREE))))
        for text in ("q1", "q2", "q3", "a1", "a2", "a3", "r1", "r2", "r3"):
            assert whole.count(text) == 1, (name, text, whole)


def test_rated_answers_stand_after_the_prompt_of_inference() -> None:
    """A preference and a feedback have one answer, the last: what is before it is a prompt, history as rendered."""
    for name in ("qwen3", "qwen3_5_think", "deepseek_r1_distill", "gptoss"):
        tokenizer, encoder = encoder_of(name)
        prompt = tokenizer.decode(encoder.prompt(THREE[:-1]).ids.tolist())
        pair = encoder.encode(Preference(THREE[:-1], THREE[-1], answer("bad", "r4"), ORIGIN))
        assert isinstance(pair, Pair)
        rated = encoder.encode(Feedback(THREE, True, ORIGIN))
        assert isinstance(rated, UnpairedSequence)
        assert rated.sequence == pair.chosen
        for sequence, said in ((pair.chosen, ("r3", "a3")), (pair.rejected, ("r4", "bad"))):
            ((before, text),) = learned(tokenizer, [sequence])
            assert before == prompt, name
            assert all(part in text for part in said), name


def test_sequences_that_are_too_long_are_told_and_the_others_are_used() -> None:
    tokenizer, encoder = encoder_of("qwen3", cutoff_len=150)
    messages = (*THREE[:3], answer("a2", "r" * 300), *THREE[4:])
    sequences = encoder.sequences(example(messages))
    assert [text for _, text in learned(tokenizer, sequences)] == [
        "<think>\nr1\n</think>\n\na1<|im_end|>",
        "<think>\nr3\n</think>\n\na3<|im_end|>",
    ]
    assert [sequence.part for sequence in sequences] == [0, 1]
    notes = {note.code: note.params for note in encoder.take_notes()}
    assert notes["overlong-part"]["names"] == ORIGIN.id
    assert (notes["overlong-part"]["sequences"], notes["history-split"]["sequences"]) == (1, 2)
    short = encoder_of("qwen3", cutoff_len=20)[1]
    (skipped,) = short.sequences(example(messages))
    assert isinstance(skipped, Skipped)
    assert skipped.code == "overlong"
    cut = encoder_of("qwen3", cutoff_len=150, overlong="truncate")[1].sequences(example(messages))
    assert [len(sequence) <= 150 for sequence in cut] == [True] * 3


def test_the_notes_count_rows_sequences_and_repeated_prompts() -> None:
    _, encoder = encoder_of("qwen3")
    done = encoder.encode_all([example(THREE), example(THREE[:2])])
    assert [sequence.part for sequence in done.encoded] == [0, 1, 2, 0]
    (note,) = done.notes
    first, second, _, _ = done.encoded
    repeated = len(first) - first.label_tokens + len(second) - second.label_tokens
    assert (note.code, note.params["rows"], note.params["sequences"]) == ("history-split", 1, 3)
    assert note.params["repeated"] == repeated
    assert encoder.take_notes() == ()


def test_the_columns_of_a_table_of_models() -> None:
    cells = {name: reasoning_columns(*template_of(name)) for name in FILES if name not in REFUSED}
    assert cells["qwen3"] == ReasoningColumns("rendered", "split into 3")
    assert cells["qwen3_8"] == ReasoningColumns("rendered", "one sequence")
    assert cells["deepseek_r1_distill"] == ReasoningColumns("added", "split into 3")
    assert cells["qwen3_5_nothink"] == ReasoningColumns("dropped", "split into 3")
    assert cells["llama3_1"] == ReasoningColumns("as text", "one sequence")
    assert not any("reasoning of" in cell.several_turns for cell in cells.values()), "all reasoning is kept, or none"


V31 = """{% set thinking = thinking if thinking is defined else false %}{{ bos_token }}{% for m in messages %}\
{% if m.role == 'user' %}{{ '<｜User｜>' + m.content }}{% else %}{% set c = m.content %}\
{% if '</think>' in c %}{% set c = c.split('</think>', 1)[1] %}{% endif %}\
{{ '<｜Assistant｜></think>' + c + '<｜end▁of▁sentence｜>' }}{% endif %}{% endfor %}{% if add_generation_prompt %}\
{{ '<｜Assistant｜>' + ('<think>' if thinking else '</think>') }}{% endif %}"""
"""DeepSeek V3.1: the prompt opens the reasoning or ends it at once; `thinking` decides."""
FIRST_R1 = """{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}{{ '<｜User｜>' + m.content }}{% else %}\
{{ '<｜Assistant｜>' + m.content.split('</think>')[-1] + '<｜end▁of▁sentence｜>' }}{% endif %}{% endfor %}\
{% if add_generation_prompt %}{{ '<｜Assistant｜>' }}{% endif %}"""
"""The first template of DeepSeek R1's distillations: a bare generation prompt."""
M2 = """{% set ns = namespace(last=-1) %}{% for m in messages %}{% if m.role == 'user' %}\
{% set ns.last = loop.index0 %}{% endif %}{% endfor %}{% for m in messages %}\
{{ ']~b]' + ('ai' if m.role == 'assistant' else m.role) + '\n' }}\
{% if m.reasoning_content and loop.index0 > ns.last %}{{ '<think>\n' + m.reasoning_content + '\n</think>\n\n' }}\
{% endif %}{{ m.content + '[e~[\n' }}{% endfor %}{% if add_generation_prompt %}{{ ']~b]ai\n<think>\n' }}{% endif %}"""
"""MiniMax M2: the prompt always opens the reasoning; an answer without any is rendered bare."""


@pytest.mark.parametrize(
    ("source", "thinking", "with_reasoning", "without"),
    [
        (V31, True, "<think>⟦r1</think>a1", "<think>⟦</think>a1"),
        (V31, None, "</think>⟦a1", "</think>⟦a1"),
        (FIRST_R1, None, "⟦<think>\nr1\n</think>\n\na1", "⟦a1"),
        (M2, None, "<think>\n⟦r1\n</think>\n\na1", "<think>\n⟦\n</think>\n\na1"),
    ],
    ids=["V3.1 thinking", "V3.1", "the first R1", "MiniMax M2"],
)
def test_reasoning_is_learned_as_the_model_writes_it(
    source: str, thinking: bool | None, with_reasoning: str, without: str
) -> None:
    tokenizer = vendor_tokenizer(source)
    encoder = Encoder(tokenizer, Template.from_tokenizer(tokenizer, enable_thinking=thinking))
    for conversation, expected in ((THREE, with_reasoning), (PLAIN, without)):
        found = learned(tokenizer, encoder.sequences(example(conversation)))
        assert len(found) == 3
        for number, (before, text) in enumerate(found, 1):
            wanted = expected.replace("1", str(number))
            assert (before + "⟦" + text).endswith(wanted + text[text.index(f"a{number}") + 2 :])
            assert before == tokenizer.decode(encoder.prompt(conversation[: 2 * number - 1]).ids.tolist())
    notes = {note.code for note in encoder.take_notes()}
    assert ("reasoning-dropped" in notes) is (source is V31 and thinking is None)


@pytest.mark.parametrize("name", ["qwen3", "qwen3_5_think", "gemma4_v5", "lfm2_2_5", "gptoss", "deepseek_r1_distill"])
def test_a_second_conversation_of_a_structure_costs_no_rendering(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Splitting is paid for once for each structure: a row is tokenized, and nothing else."""
    _, encoder = encoder_of(name)
    encoder.sequences(example(THREE))
    monkeypatch.setattr(template_environment, "render", lambda *_: pytest.fail("rendered again"))
    others = tuple(replace(m, text=m.text * 2, reasoning=m.reasoning and m.reasoning * 3) for m in THREE)
    assert len(encoder.sequences(example(others))) == 3


def test_texts_of_one_row_do_not_decide_for_the_next() -> None:
    """A row whose texts the template looks into is grouped by itself, and its grouping is not kept."""
    tokenizer, encoder = encoder_of("qwen3")
    odd = tuple(replace(m, text="<tool_response>x") if m.text == "q2" else m for m in THREE)
    for messages in (odd, THREE, odd, THREE):
        outcomes = encoder.sequences(example(messages))
        assert not isinstance(outcomes[0], Skipped)
        prompts = [tokenizer.decode(encoder.prompt(messages[:n]).ids.tolist()) for n in (1, 3, 5)]
        assert sorted(before for before, _ in learned(tokenizer, outcomes)) == sorted(prompts)
    assert len(encoder.sequences(example(THREE))) == 3
