"""What is asked of which passage, in which order, and what that will cost; asks nothing itself."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from sartor.base.types import Message
from sartor.qa_generation.chunks import chunks_of, sentences_of
from sartor.qa_generation.documents import HEADING, Source
from sartor.qa_generation.journal import Journal, key_of
from sartor.qa_generation.pairs import Passage
from sartor.qa_generation.prompt_files import Prompt

MIN_CHARACTERS = 12
"""Characters that a passage holds beside its headings, at least: a table of contents is not worth a question."""
SENTENCE = range(20, 400)
"""Characters of a sentence that a small model is asked about."""
MAX_PAIRS_PER_PASSAGE = 10
ROUNDS = 3
"""How often a passage is asked for other questions, when `pairs` are wanted and too few were found."""
PAIR_TOKENS = 80
"""Assumed of an answer: so many tokens for each pair (question, answer and quote as JSON)."""
CALL_S, SMALL_CALL_S = 6.0, 2.0
"""Seconds of a request to an endpoint, and of a question to the embedded model: assumed until one is measured."""


@dataclass(frozen=True, slots=True)
class Task:
    """One request: `most` pairs are taken from its answer; `last` of the requests on its passage in this round."""

    passage: Passage
    messages: tuple[Message, ...]
    max_pairs: int
    last: bool = True


@dataclass(frozen=True, slots=True)
class Estimate:
    """Before anything is asked. `tokens_*` are assumed, `most_tokens_*` are bounds; `seconds` are assumed or measured.

    `calls` are those still to make, after `reused` answers that the journal holds; money is in the user's currency.
    """

    passages: int
    calls: int
    reused: int
    tokens_in: int
    tokens_out: int
    max_tokens_in: int
    max_tokens_out: int
    cost: float
    max_cost: float
    seconds: float
    basis: Literal["assumed", "measured"] = "assumed"
    assumed_call_s: float = CALL_S

    def measured(self, call_s: float, workers: int) -> Estimate:
        """With the seconds that the first answer took; so many requests run at once."""
        return replace(self, seconds=call_s * math.ceil(self.calls / workers), basis="measured")

    def to_json(self) -> dict[str, Any]:
        """Plain values for machines and pages."""
        return asdict(self)


def passages_of(sources: Sequence[Source], most: int) -> list[Passage]:
    """The chunks of all sections, of at most `most` characters each; those that hold little but headings are left out.

    Where there are several documents, a section's name begins with its document's.
    """
    found = []
    for source in sources:
        for section in source.sections:
            title = section.title or source.path.stem
            if len(sources) > 1 and section.title:
                title = f"{source.path.name}: {title}"
            for chunk in chunks_of(section.text, most):
                if len("".join(HEADING.sub("", chunk.text).split())) >= MIN_CHARACTERS:
                    found.append(Passage(source.path.name, source.sha256, title, chunk.start, chunk.stop, chunk.text))
    return found


def pairs_per_passage(pairs: int | None, per_chunk: int | None, passages: int, gather: bool = False) -> int:
    """How many questions a passage is asked for: as told, else what `pairs` in all need, else two.

    With `gather` the questions of a passage are the turns of one conversation: three.
    """
    if gather:
        return 3
    if per_chunk is not None:
        return per_chunk
    if pairs is None:
        return 2
    return min(max(math.ceil(pairs / max(passages, 1)), 1), MAX_PAIRS_PER_PASSAGE)


def spread_order(count: int) -> list[int]:
    """0 … count-1 so that any beginning of the list is spread over all of it (binary van der Corput order)."""
    bits = max(count - 1, 1).bit_length()
    order = (int(f"{number:0{bits}b}"[::-1], 2) * count >> bits for number in range(1 << bits))
    return list(dict.fromkeys(order)) if count else []


def tasks_of(
    passages: Sequence[Passage],
    prompt: Prompt,
    each: int,
    turn: int = 0,
    asked: Mapping[Passage, list[str]] | None = None,
) -> list[Task]:
    """The requests of one round in the order of the passages; `asked` are the questions that were written before."""
    found: list[Task] = []
    for passage in passages:
        if not prompt.by_sentence:
            before = (asked or {}).get(passage, ())
            messages = prompt.messages(passage.text, section=passage.section, pairs=each, asked=before)
            found.append(Task(passage, messages, each))
            continue
        sentences = [passage.text[a:b] for a, b in sentences_of(passage.text) if _worth(passage.text[a:b])]
        order = [sentences[place] for place in spread_order(len(sentences))] if sentences else []
        mine = order[turn * each : (turn + 1) * each]
        for place, sentence in enumerate(mine, 1):
            messages = prompt.messages(passage.text, section=passage.section, sentence=sentence)
            found.append(Task(passage, messages, 1, place == len(mine)))
    return found


def estimate(
    tasks: Iterable[Task],
    journal: Journal,
    *,
    model: str,
    max_tokens: int,
    pairs: int | None = None,
    price_in: float = 0.0,
    price_out: float = 0.0,
    workers: int = 1,
    call_s: float = CALL_S,
) -> Estimate:
    """Count what is to be asked still; with `pairs` wanted, no more than these need if every answer is used."""
    passages: set[Passage] = set()
    calls = reused = tokens_in = tokens_out = most_in = likely = 0
    for task in tasks:
        if pairs is not None and likely >= pairs:
            break
        likely += task.max_pairs
        passages.add(task.passage)
        if journal.get(key_of(model, task.messages)) is not None:
            reused += 1
            continue
        calls += 1
        tokens_in += sum(tokens_in_text(message.text) + 4 for message in task.messages)
        most_in += sum(len(message.text.encode("utf-8", "surrogatepass")) + 16 for message in task.messages)
        tokens_out += min(task.max_pairs * PAIR_TOKENS, max_tokens)
    money, most_money = (
        (inside * price_in + outside * price_out) / 1e6
        for inside, outside in ((tokens_in, tokens_out), (most_in, calls * max_tokens))
    )
    return Estimate(
        len(passages),
        calls,
        reused,
        tokens_in,
        tokens_out,
        most_in,
        calls * max_tokens,
        money,
        most_money,
        call_s * math.ceil(calls / workers),
        assumed_call_s=call_s,
    )


def tokens_in_text(text: str) -> int:
    """Assumed: a Chinese character is a token, of other text each four characters are one."""
    chinese = sum("\u3000" <= character <= "\u9fff" for character in text)
    return chinese + math.ceil((len(text) - chinese) / 4)


def _worth(sentence: str) -> bool:
    asks = sentence.rstrip("”’\"'」』)")[-1:] in "?？"
    return len(sentence) in SENTENCE and not asks and not HEADING.search(sentence)
