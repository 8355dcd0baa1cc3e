"""Documents to grounded pairs: asks what the journal does not hold yet; the completing function is handed in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sartor.base.errors import DataError, EndpointError
from sartor.base.types import Message
from sartor.data.encoding import read_text
from sartor.data.generate.chunks import chunks_of
from sartor.data.generate.documents import Source
from sartor.data.generate.journal import Journal, key_of
from sartor.data.generate.pairs import Grounded, Passage, Refused, parse

PROMPTS = Path(__file__).parent / "prompts"


@dataclass(frozen=True, slots=True)
class Completion:
    """What a model answered."""

    text: str
    prompt_tokens: int = 0
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class Generated:
    """Pairs, what was refused, and the passages that no answer came for; those are asked again by the next run."""

    pairs: tuple[Grounded, ...]
    refused: tuple[Refused, ...]
    failed: tuple[tuple[Passage, str], ...]
    asked: int
    reused: int


def passages_of(sources: Iterable[Source], most: int) -> Iterator[Passage]:
    """The chunks of all sections, of at most `most` characters each."""
    for source in sources:
        for section in source.sections:
            for chunk in chunks_of(section.text, most):
                title = section.title or source.path.stem
                yield Passage(source.path.name, source.sha256, title, chunk.start, chunk.stop, chunk.text)


def read_style(language: str, style: Path | None = None) -> str:
    """The prompt's text, the user's file or ours. Raises: DataError when it does not name {passage}."""
    text = read_text(style or PROMPTS / f"{language}.txt").text
    try:
        if "\0" not in text.format(pairs=1, section="", passage="\0"):
            raise KeyError("passage")
    except (KeyError, IndexError, ValueError) as error:
        raise DataError(
            f"The prompt file does not fit: {error}.", str(style),
            "It needs {passage}, may have {pairs} and {section}; other braces are doubled: {{ }}.",
        ) from None  # fmt: skip
    return text


def generate(
    passages: Sequence[Passage], complete: Callable[[Sequence[Message]], Completion], journal: Journal, *,
    model: str, prompt: str, per_chunk: int, progress: Callable[[int, int | None], None] | None = None,
) -> Generated:  # fmt: skip
    """Ask for each passage, once. An EndpointError fails its passage alone and is never journalled."""
    pairs: list[Grounded] = []
    refused: list[Refused] = []
    failed: list[tuple[Passage, str]] = []
    asked = reused = 0
    for number, passage in enumerate(passages, 1):
        asking = (Message("user", prompt.format(pairs=per_chunk, section=passage.section, passage=passage.text)),)
        key = key_of(model, asking)
        answer = journal.get(key)
        if answer is None:
            try:
                answer = complete(asking).text
            except EndpointError as error:
                failed.append((passage, error.what))
                continue
            journal.add(key, answer)
            asked += 1
        else:
            reused += 1
        good, bad = parse(answer, passage, per_chunk)
        pairs += good
        refused += bad
        if progress:
            progress(number, len(passages))
    return Generated(tuple(pairs), tuple(refused), tuple(failed), asked, reused)
