"""Ctrl-C in a chat stops the answer, and only a second one at the prompt ends the chat."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sartor.inference.chat import chat


class Endless:
    """An engine whose answers go on until Ctrl-C, pressed at the third piece."""

    def __init__(self) -> None:
        self.weights = SimpleNamespace(has_both=True)
        self.asked: list[list[str]] = []
        self.closed = 0

    def stream(self, turns: Any, *_: Any, **__: Any) -> Iterator[str]:
        self.asked.append([turn.text for turn in turns])
        try:
            yield "It is "
            yield "a truth "
            raise KeyboardInterrupt
        finally:
            self.closed += 1


def typed(*lines: str | type[BaseException]) -> Callable[[str], str]:
    waiting = iter(lines)

    def read(_: str) -> str:
        line = next(waiting)
        if isinstance(line, str):
            return line
        raise line

    return read


def test_ctrl_c_stops_the_answer_and_keeps_what_was_said(tmp_path: Path) -> None:
    engine, out = Endless(), io.StringIO()
    chat(engine, save_to=tmp_path / "rows.json", read=typed("Is it?", "And then?", "/exit"), out=out)  # type: ignore[arg-type]
    assert engine.asked == [["Is it?"], ["Is it?", "It is a truth ", "And then?"]]
    assert engine.closed == 2
    assert out.getvalue().count("[stopped]") == 2


@pytest.mark.parametrize("end", [(KeyboardInterrupt, KeyboardInterrupt), (KeyboardInterrupt, "/exit"), (EOFError,)])
def test_the_chat_ends_at_the_second_ctrl_c(end: tuple[Any, ...], tmp_path: Path) -> None:
    out = io.StringIO()
    chat(Endless(), read=typed(*end), out=out)  # type: ignore[arg-type]
    assert ("/exit, ends the chat" in out.getvalue()) == (KeyboardInterrupt in end)


def test_a_line_in_between_starts_the_count_anew() -> None:
    out = io.StringIO()
    keys = (KeyboardInterrupt, "/clear", KeyboardInterrupt, "/clear", "/exit")
    chat(Endless(), read=typed(*keys), out=out)  # type: ignore[arg-type]
    assert out.getvalue().count("ends the chat") == 2
