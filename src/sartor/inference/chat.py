"""A conversation in the terminal: streaming, with the untuned model's answer to the same turn at hand."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from sartor.base.files import atomic_write
from sartor.base.settings import GenerationSettings
from sartor.base.types import Message
from sartor.inference.engine import Answer, Engine
from sartor.inference.weights import WeightSet

HELP = """/base         hear the untuned model's answer to the same turn
/system TEXT  set the system text (empty: none) and begin anew
/clear        begin anew
/save         keep the last turn as a training row
/exit         leave (so does Ctrl-D)"""


@dataclass(slots=True)
class Chat:
    """One conversation and where it is written."""

    engine: Engine
    generation: GenerationSettings
    save_to: Path
    out: TextIO
    system: str = ""
    turns: list[Message] = field(default_factory=list)

    def send(self, line: str) -> bool:
        """One line of a person: a command, or a turn to answer. False ends the chat."""
        command, _, rest = line.strip().partition(" ")
        match command:
            case "":
                pass
            case "/exit" | "/quit":
                return False
            case "/help":
                self._print(HELP)
            case "/clear":
                self.turns.clear()
            case "/system":
                self.system = rest.strip()
                self.turns.clear()
            case "/base":
                self._base()
            case "/save":
                self._save()
            case _ if command.startswith("/"):
                self._print(f"There is no command {command}. These are:\n{HELP}")
            case _:
                self._answer([*self.turns, Message("user", line.strip())], "tuned", keep=True)
        return True

    def _answer(self, turns: list[Message], which: WeightSet, *, keep: bool) -> Answer:
        head = [Message("system", self.system)] if self.system else []
        pieces = self.engine.stream([*head, *turns], self.generation, weights=which)
        while True:
            try:
                self.out.write(_plain(next(pieces)))
                self.out.flush()
            except StopIteration as end:
                answer: Answer = end.value
                break
        cut = " [cut at max_new_tokens]" if answer.stop_reason == "length" else ""
        self._print(f"{cut}\n  ({answer.tokens} tokens, weights {answer.fingerprint})")
        if keep:
            self.turns = [*turns, Message("assistant", answer.text, reasoning=answer.reasoning)]
        return answer

    def _base(self) -> None:
        if len(self.turns) < 2:
            self._print("Ask something first.")
        elif not self.engine.weights.has_both:
            self._print("Only one model is loaded: start the chat with a run's folder.")
        else:
            self._print("base:")
            self._answer(self.turns[:-1], "base", keep=False)

    def _save(self) -> None:
        if len(self.turns) < 2:
            self._print("Ask something first.")
            return
        rows = json.loads(self.save_to.read_text(encoding="utf-8")) if self.save_to.exists() else []
        names = {"user": "human", "assistant": "gpt"}
        row = {"conversations": [{"from": names[t.role], "value": t.text} for t in self.turns[-2:]]}
        rows.append(row | ({"system": self.system} if self.system else {}))
        atomic_write(self.save_to, json.dumps(rows, ensure_ascii=False, indent=1) + "\n")
        self._print(
            f"Kept in {self.save_to} ({len(rows)} rows); edit it, then: sartor import {self.save_to} --name NAME"
        )

    def _print(self, text: str) -> None:
        self.out.write(text + "\n")
        self.out.flush()


def chat(
    engine: Engine,
    *,
    generation: GenerationSettings | None = None,
    save_to: Path | None = None,
    read: Callable[[str], str] = input,
    out: TextIO | None = None,
) -> None:
    """Talk until /exit or the end of input."""
    talk = Chat(engine, generation or GenerationSettings(), save_to or Path("chat_rows.json"), out or sys.stdout)
    if read is input:
        with contextlib.suppress(ImportError):  # arrow keys: earlier lines come back; Windows has its own
            import readline  # noqa: F401
    talk._print(f"{HELP}\n")
    while True:
        try:
            if not talk.send(read("> ")):
                return
        except EOFError:
            return


def _plain(text: str) -> str:
    """What a model writes is text: no escape sequence reaches the terminal."""
    return "".join(c for c in text if c in "\n\t" or c.isprintable() or c in "\u200b\u200c\u200d")
