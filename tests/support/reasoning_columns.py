"""What becomes of reasoning under a template, in one turn and in several: found by encoding, for a table of models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sartor.base.settings import PromptSettings
from sartor.base.types import Demonstration, Message, Origin, Skipped
from sartor.prompt.encode import Encoder
from sartor.prompt.template import Template
from support.inference_view import inference_view, learned

TURNS = 3


@dataclass(frozen=True, slots=True)
class ReasoningColumns:
    """Two cells of a table: a word or two each, or why the conversation is refused."""

    one_turn: str
    """`rendered` by the template, `added` where the model writes it, `as text` of the answer, or `dropped`."""
    several_turns: str
    """`one sequence`, or `split into 3` (for three turns), and whether each answer keeps its reasoning."""


def conversation(turns: int = TURNS) -> tuple[Message, ...]:
    """Questions and answers with reasoning: q1, r1, a1, …"""
    return tuple(
        message
        for n in range(1, turns + 1)
        for message in (Message("user", f"q{n}"), Message("assistant", f"a{n}", reasoning=f"r{n}"))
    )


def reasoning_columns(tokenizer: Any, template: Template) -> ReasoningColumns:
    """The cells of a template. AssertionError if an answer does not stand after the prompt that inference sees."""
    encoder = Encoder(tokenizer, template, PromptSettings(cutoff_len=100_000))
    one = _learned(encoder, conversation(1))
    if isinstance(one, Skipped):
        return ReasoningColumns(f"refused: {one.reason}", f"refused: {one.reason}")
    kind = (
        "rendered"
        if template.renders_reasoning
        else "added"
        if template.adds_reasoning
        else "dropped"
        if template.drops_reasoning
        else "as text"
    )
    assert ("r1" in one[0][1]) is (kind != "dropped")
    messages = conversation()
    outcomes = encoder.sequences(Demonstration(messages, Origin("made", "made.json", 1)))
    if isinstance(outcomes[0], Skipped):
        return ReasoningColumns(kind, f"refused: {outcomes[0].reason}")
    found = dict(learned(tokenizer, outcomes))
    kept = 0
    for n in range(TURNS):
        prompt, _ = inference_view(tokenizer, template, messages, 2 * n + 1, ())
        assert f"a{n + 1}" in found[prompt]
        kept += f"r{n + 1}" in found[prompt]
    several = "one sequence" if len(outcomes) == 1 else f"split into {len(outcomes)}"
    return ReasoningColumns(kind, several if kept in (0, TURNS) else f"{several}, reasoning of {kept}")


def _learned(encoder: Encoder, messages: tuple[Message, ...]) -> list[tuple[str, str]] | Skipped:
    outcomes = encoder.sequences(Demonstration(messages, Origin("made", "made.json", 1)))
    if isinstance(outcomes[0], Skipped):
        return outcomes[0]
    return learned(encoder.tokenizer, outcomes)
