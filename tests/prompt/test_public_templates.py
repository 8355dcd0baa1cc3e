"""The chat templates of public models that TRL ships: taken apart as promised, or refused by name."""

from __future__ import annotations

import pytest

from sartor.base.errors import PromptError
from sartor.base.types import Demonstration, Message, Origin, TokenSequence
from sartor.prompt.encode import Encoder
from sartor.prompt.messages import to_jinja
from support.public_templates import CALL, CLOSED, FILES, REFUSED, TOOL, template_of

QUESTION, ANSWER = Message("user", " Who  wrote\n Emma? "), Message("assistant", "\nJane Austen.\nShe did. ")

pytestmark = pytest.mark.skipif(not FILES, reason="TRL is not installed")


@pytest.mark.parametrize("name", [name for name in FILES if name not in REFUSED])
def test_ids_are_those_of_transformers_and_answers_are_learned(name: str) -> None:
    tokenizer, template = template_of(name)
    encoder = Encoder(tokenizer, template)
    for messages in ((QUESTION, ANSWER), (QUESTION, ANSWER, QUESTION, ANSWER)):
        *_, sequence = encoder.sequences(Demonstration(messages, Origin("a", "a", 1)))
        assert isinstance(sequence, TokenSequence)
        if "strftime_now" not in template.source and name not in CLOSED:
            dicts = [to_jinja(message, template.renderer.form) for message in messages]
            theirs = tokenizer.apply_chat_template(dicts, return_dict=False)
            assert sequence.ids.tolist() == theirs
        learned = [tokenizer.decode(sequence.ids[a:b].tolist()) for a, b in sequence.label_spans]
        assert len(learned) in (1, len(messages) // 2)
        assert all("Jane Austen.\nShe did." in text and "Emma" not in text for text in learned)
        assert learned[-1].endswith(template.end)
        assert sequence.ids[sequence.label_spans[-1][1] - 1] in encoder.stop_ids
        if name not in CLOSED:
            assert template.render(messages).startswith(template.render(messages[:-1], generation=True))


@pytest.mark.parametrize("name", ["qwen2_5", "qwen3", "qwen3_instruct_2507", "llama3_1", "gemma4_v5", "lfm2_v2"])
def test_calls_are_learned_to_their_end(name: str) -> None:
    tokenizer, template = template_of(name)
    messages = (QUESTION, CALL, Message("tool", "1815"), ANSWER)
    sequence, *_ = Encoder(tokenizer, template).sequences(Demonstration(messages, Origin("a", "a", 1), (TOOL,)))
    assert isinstance(sequence, TokenSequence)
    call = tokenizer.decode(sequence.ids[slice(*sequence.label_spans[0])].tolist())
    assert "find" in call
    assert "Emma" in call
    assert "1815" not in call
    assert sequence.ids[sequence.label_spans[0][1] - 1] in Encoder(tokenizer, template).stop_ids


@pytest.mark.parametrize("name", [name for name in FILES if name in REFUSED])
def test_the_others_are_refused_by_name(name: str) -> None:
    with pytest.raises(PromptError, match=REFUSED[name]) as refused:
        template_of(name)
    assert "template=chatml" in str(refused.value.fix)
