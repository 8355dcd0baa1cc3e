"""A chat template as Ollama's Go template, derived from two renderings and verified on six conversations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sartor.base.errors import ExportError
from sartor.base.i18n import tr
from sartor.base.types import Message
from sartor.prompt.template import Template

_SYSTEM, _FIRST, _ANSWER, _SECOND = "§system§", "§first§", "§answer§", "§second§"


@dataclass(frozen=True, slots=True)
class GoTemplate:
    """The text between the messages of a conversation."""

    before_system: str
    after_system: str
    without_system: str
    """Before the first question without a system message (it may hold a default one)."""
    before_answer: str
    before_question: str
    end: str

    @classmethod
    def of(cls, template: Template, *, skip: str = "") -> GoTemplate:
        """Derive it from a template; `skip` is what Ollama adds at the beginning by itself (the BOS token's text).

        Raises: ExportError when it cannot be expressed as a Go template.
        """
        talk = [Message("user", _FIRST), Message("assistant", _ANSWER), Message("user", _SECOND)]
        whole = template.render([Message("system", _SYSTEM), *talk], generation=True).removeprefix(skip)
        bare = template.render(talk, generation=True).removeprefix(skip)
        before_system, after_system = _texts_around(whole, _SYSTEM, _FIRST)
        without_system, _ = _texts_around(bare, _FIRST, _ANSWER)
        before_answer = _text_between(whole, _FIRST, _ANSWER)
        made = cls(
            before_system,
            after_system,
            without_system,
            before_answer,
            _text_between(whole, _ANSWER, _SECOND),
            whole.rpartition(_SECOND)[2],
        )
        made._verify(template, skip)
        return made

    def source(self) -> str:
        """The Go template; on one line, because trim markers would remove the template's own line ends."""
        return (
            f"{{{{ if .System }}}}{self.before_system}{{{{ .System }}}}{self.after_system}"
            f"{{{{ else }}}}{self.without_system}{{{{ end }}}}{{{{ $asked := false }}}}{{{{ range .Messages }}}}"
            f'{{{{ if eq .Role "user" }}}}{{{{ if $asked }}}}{self.before_question}{{{{ end }}}}{{{{ .Content }}}}'
            f"{{{{ $asked = true }}}}"
            f'{{{{ else if eq .Role "assistant" }}}}{self.before_answer}{{{{ .Content }}}}{{{{ end }}}}{{{{ end }}}}'
            f"{self.end}"
        )

    def render(self, messages: Sequence[Message]) -> str:
        """What Ollama renders from `source`, by the same steps."""
        system = "\n\n".join(m.text for m in messages if m.role == "system")
        text = f"{self.before_system}{system}{self.after_system}" if system else self.without_system
        asked = False
        for message in messages:
            if message.role == "user":
                text += (self.before_question if asked else "") + message.text
                asked = True
            elif message.role == "assistant":
                text += self.before_answer + message.text
        return text + self.end

    def _verify(self, template: Template, skip: str) -> None:
        pieces = "".join((self.before_system, self.after_system, self.without_system, self.before_answer, self.end))
        if "{{" in pieces or '"""' in pieces:
            raise ExportError("The chat template contains Modelfile syntax.", template.name, _FIX)
        turns = [
            Message("user", "One?"),
            Message("assistant", "Two."),
            Message("user", "三？"),
            Message("assistant", "Four"),
            Message("user", "Five\nsix"),
        ]
        for head in ([], [Message("system", "Be brief.")]):
            for count in (1, 3, 5):
                talk = [*head, *turns[:count]]
                if self.render(talk) != template.render(talk, generation=True).removeprefix(skip):
                    raise ExportError("The chat template cannot be written as an Ollama template.", template.name, _FIX)


_FIX = tr("Use --to gguf: llama.cpp reads the chat template itself (llama-server --jinja).")


def _texts_around(text: str, first: str, second: str) -> tuple[str, str]:
    return text.partition(first)[0], _text_between(text, first, second)


def _text_between(text: str, first: str, second: str) -> str:
    before, found, rest = text.partition(first)
    inner, found_too, _ = rest.partition(second)
    if not (found and found_too):
        raise ExportError("The chat template does not keep the messages of a conversation in order.", before[:80], _FIX)
    return inner
