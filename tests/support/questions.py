"""Rows to be answered, and ways of decoding them."""

from __future__ import annotations

from sartor.base.settings import GenerationSettings
from sartor.base.types import Demonstration, Message, Origin


def example(number: int, answer: str = "Darcy.", last: str = "assistant") -> Demonstration:
    turns = (Message("user", f"Who is number {number}?"), Message(last, answer))  # type: ignore[arg-type]
    return Demonstration(turns, Origin("d", "d.json", number))


FEW = GenerationSettings(max_new_tokens=4)


SAMPLED = GenerationSettings(max_new_tokens=6, do_sample=True, temperature=1.2)
