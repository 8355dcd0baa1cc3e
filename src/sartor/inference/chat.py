"""Chat in the terminal, with the base model's answer to the same turn one command away."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from sartor.base.files import atomic_write
from sartor.base.i18n import Text, ntr, tr
from sartor.base.locks import REGISTRY_WAIT_S, file_lock
from sartor.base.settings import GenerationSettings
from sartor.base.types import Message
from sartor.inference.engine import Answer, Engine
from sartor.inference.weights import WeightSet

HELP = tr(
    "/base         show the base model's answer to the same turn\n"
    "/system TEXT  set the system message (empty: none) and start a new chat\n"
    "/clear        start a new chat\n"
    "/save         save the last turn as a training row\n"
    "/exit         quit (or Ctrl-D); Ctrl-C stops an answer"
)


@dataclass(slots=True)
class Chat:
    """A conversation and the file that /save appends to."""

    engine: Engine
    generation: GenerationSettings
    save_to: Path
    out: TextIO
    system: str = ""
    turns: list[Message] = field(default_factory=list)

    def send(self, line: str) -> bool:
        """Handle a line of input: a command, or a message to answer. False ends the chat."""
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
                self._print(tr("Unknown command {command}. Available:\n{commands}", command=command, commands=HELP))
            case _:
                self._answer([*self.turns, Message("user", line.strip())], "tuned", keep=True)
        return True

    def _answer(self, turns: list[Message], which: WeightSet, *, keep: bool) -> None:
        """Stream the answer; Ctrl-C ends it, and what was said until then counts."""
        head = [Message("system", self.system)] if self.system else []
        pieces = self.engine.stream([*head, *turns], self.generation, weights=which)
        said: list[str] = []
        try:
            while True:
                said.append(next(pieces))
                self.out.write(_plain(said[-1]))
                self.out.flush()
        except StopIteration as end:
            answer: Answer = end.value
        except KeyboardInterrupt:
            pieces.close()
            self._print(f" [{tr('stopped')}]")
            if keep and said:
                self.turns = [*turns, Message("assistant", "".join(said))]
            return
        cut = f" [{tr('cut off at max_new_tokens')}]" if answer.stop_reason == "length" else ""
        tokens = ntr("{count} token", "{count} tokens", count=answer.tokens)
        self._print(f"{cut}\n  ({tokens}, {tr('weights')} {answer.fingerprint})")
        if keep:
            self.turns = [*turns, Message("assistant", answer.text, reasoning=answer.reasoning)]

    def _base(self) -> None:
        if len(self.turns) < 2:
            self._print(tr("Send a message first."))
        elif not self.engine.weights.has_both:
            self._print(tr("Only one model is loaded. Start the chat with a run folder to compare."))
        else:
            self._print("base:")
            self._answer(self.turns[:-1], "base", keep=False)

    def _save(self) -> None:
        if len(self.turns) < 2:
            self._print(tr("Send a message first."))
            return
        names = {"user": "human", "assistant": "gpt"}
        row = {"conversations": [{"from": names[t.role], "value": t.text} for t in self.turns[-2:]]}
        with file_lock(self.save_to, REGISTRY_WAIT_S):
            try:
                rows = json.loads(self.save_to.read_text(encoding="utf-8")) if self.save_to.exists() else []
            except ValueError:
                rows = None
            if not isinstance(rows, list):
                self._print(tr("{file} is not a list of rows in JSON; nothing was saved.", file=self.save_to))
                return
            rows.append(row | ({"system": self.system} if self.system else {}))
            atomic_write(self.save_to, json.dumps(rows, ensure_ascii=False, indent=1) + "\n")
        self._print(
            ntr(
                "Saved to {file} ({count} row). Edit it, then run: sartor import {file} --name NAME",
                "Saved to {file} ({count} rows). Edit it, then run: sartor import {file} --name NAME",
                count=len(rows),
                file=self.save_to,
            )
        )

    def _print(self, text: str | Text) -> None:
        self.out.write(f"{text}\n")
        self.out.flush()


def chat(
    engine: Engine,
    *,
    generation: GenerationSettings | None = None,
    save_to: Path | None = None,
    read: Callable[[str], str] = input,
    out: TextIO | None = None,
) -> None:
    """Chat until /exit or the end of input."""
    session = Chat(engine, generation or GenerationSettings(), save_to or Path("chat_rows.json"), out or sys.stdout)
    if read is input:
        with contextlib.suppress(ImportError):  # arrow keys recall earlier lines; Windows has its own
            import readline  # noqa: F401
    session._print(f"{HELP}\n")
    warned = False
    while True:
        try:
            line = read("> ")
        except EOFError:
            return
        except KeyboardInterrupt:
            if warned:
                return
            warned = True
            session._print(f"\n{tr('Ctrl-C again, or /exit, ends the chat.')}")
            continue
        warned = False
        if not session.send(line):
            return


def _plain(text: str) -> str:
    """Without control characters: a model must not send escape sequences to the terminal."""
    return "".join(c for c in text if c in "\n\t" or c.isprintable() or c in "\u200b\u200c\u200d")
