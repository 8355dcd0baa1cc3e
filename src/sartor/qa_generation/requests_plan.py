"""Which requests are sent about which passages, in which order, and what they will need; sends nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from sartor.base.errors import ConfigError
from sartor.base.openai_client import ATTEMPTS
from sartor.base.types import Message
from sartor.qa_generation.budget import Budget, Maximum, max_prompt_tokens
from sartor.qa_generation.chunks import chunks_of, sentences_of
from sartor.qa_generation.documents import HEADING, Source, read_document
from sartor.qa_generation.journal import Journal, key_of
from sartor.qa_generation.pairs import Passage
from sartor.qa_generation.prompt_files import LANGUAGES, Prompt, language_of, read_prompt
from sartor.qa_generation.settings import QAGenerationSettings

PASSAGE_CHARACTERS = 1200
"""The longest passage."""
MIN_PASSAGE_CHARACTERS = 12
"""Characters that a passage needs besides its headings: a table of contents is not worth a question."""
SENTENCE_CHARACTERS = range(20, 400)
"""Length of a sentence that a small model is asked about."""
ANSWER_TOKENS, LOCAL_ANSWER_TOKENS, SMALL_ANSWER_TOKENS = 1024, 512, 80
"""The longest answer of an endpoint, of a local model, and to a small model's prompt of a single question."""
DEFAULT_PAIRS_PER_PASSAGE = 2
MAX_PAIRS_PER_PASSAGE = 10
CONVERSATION_TURNS = 3
"""Questions on a passage that become one conversation where a small model is asked for one at a time."""
ROUNDS = 3
"""How often a passage is asked for further questions while fewer than the wanted `pairs` were found."""
ASKED_BYTES = 2000
"""Of the earlier questions on a passage that a further round quotes."""
ASKED_LINE_BYTES = 64
"""More than the line above them."""
MIN_REPEATS, REPEATED_FRAC = 2, 0.1
"""Answers that may have been charged for without arriving and are asked for again: at least, and of all requests."""
PAIR_TOKENS = 80
"""Assumed tokens of a pair in an answer: question, answer and quote as JSON."""
CALL_S, SMALL_CALL_S = 6.0, 2.0
"""Assumed seconds of a request to an endpoint, and of a question to the embedded model, until one is measured."""


@dataclass(frozen=True)  # not slotted: `order` is cached
class GenerationPlan:
    """The settings, and what was read because of them: the passages and the prompt."""

    settings: QAGenerationSettings
    passages: tuple[Passage, ...]
    prompt: Prompt

    @property
    def model_key(self) -> str:
        """The model's name in the journal."""
        endpoint = self.settings.endpoint
        return f"{endpoint.url} {endpoint.model}" if endpoint else f" {self.settings.model}"

    @property
    def workers(self) -> int:
        return self.settings.workers if self.settings.endpoint else 1

    @property
    def max_tokens(self) -> int:
        """The longest answer, in tokens."""
        if self.prompt.by_sentence:
            return SMALL_ANSWER_TOKENS
        return ANSWER_TOKENS if self.settings.endpoint else LOCAL_ANSWER_TOKENS

    @property
    def joins_questions(self) -> bool:
        """Whether the single questions on a passage become the turns of one conversation."""
        return self.settings.multi_turn and self.prompt.by_sentence

    @property
    def pairs_per_passage(self) -> int:
        """Questions to ask for in one round: as set, or as many as `pairs` needs."""
        settings = self.settings
        if self.joins_questions:
            return CONVERSATION_TURNS
        if settings.per_chunk is not None:
            return settings.per_chunk
        if settings.pairs is None:
            return DEFAULT_PAIRS_PER_PASSAGE
        return min(max(math.ceil(settings.pairs / max(len(self.passages), 1)), 1), MAX_PAIRS_PER_PASSAGE)

    @cached_property
    def order(self) -> tuple[Passage, ...]:
        """The passages as they are asked about; spread over the documents if the run may end before the last one."""
        if self.settings.pairs is None:
            return self.passages
        return tuple(self.passages[index] for index in spread_order(len(self.passages)))


@dataclass(frozen=True, slots=True)
class Task:
    """One request. At most `max_pairs` are taken from its answer; `last` of those on its passage in this round."""

    passage: Passage
    messages: tuple[Message, ...]
    max_pairs: int
    last: bool = True


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a run will need. `tokens_*` are assumed; `max_*` are never exceeded: what sends the requests holds them.

    `calls` are the answers still to get, if each comes at once and can be used, besides `reused` ones in the journal;
    `max_calls` counts every attempt and every further round. Costs are in the user's currency; `seconds` are assumed
    or measured.
    """

    passages: int
    calls: int
    max_calls: int
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

    def measured(self, seconds: float) -> Estimate:
        """With the seconds of the whole run, as the answers so far foretell them."""
        return replace(self, seconds=seconds, basis="measured")

    def to_json(self) -> dict[str, Any]:
        """Plain values, for `--json` and the page."""
        return asdict(self)


def make_plan(documents: Sequence[str | Path], settings: QAGenerationSettings) -> GenerationPlan:
    """Read the documents and the prompt. Raises: DataError, ConfigError."""
    if settings.language is not None and settings.language not in LANGUAGES:
        raise ConfigError(
            "There is no prompt in the language {language!r}.",
            "--language",
            "Use en or zh, or your own prompt with --prompt FILE.",
            language=settings.language,
        )
    sources = [read_document(Path(document), settings.encoding) for document in documents]
    passages = passages_of(sources, PASSAGE_CHARACTERS)
    prompt = read_prompt(
        settings.language or language_of(passage.text for passage in passages),
        settings.prompt,
        settings.style,
        multi_turn=settings.multi_turn,
        small=settings.uses_embedded_model,
    )
    return GenerationPlan(settings, tuple(passages), prompt)


def passages_of(sources: Sequence[Source], max_characters: int) -> list[Passage]:
    """The chunks of all sections; those that hold little but headings are left out.

    With several documents, the name of a section begins with the name of its document.
    """
    passages = []
    for source in sources:
        file, sha256 = source.path.name, source.sha256
        for section in source.sections:
            title = f"{file}: {section.title}" if len(sources) > 1 else section.title
            for chunk in chunks_of(section.text, max_characters):
                if len("".join(HEADING.sub("", chunk.text).split())) >= MIN_PASSAGE_CHARACTERS:
                    passages.append(Passage(file, sha256, title, chunk.start, chunk.stop, chunk.text))
    return passages


def spread_order(count: int) -> list[int]:
    """0 … count-1, ordered so that any beginning is spread over the whole (the binary van der Corput sequence)."""
    bits = max(count - 1, 1).bit_length()
    order = (int(f"{number:0{bits}b}"[::-1], 2) * count >> bits for number in range(1 << bits))
    return list(dict.fromkeys(order)) if count else []


def tasks_of(plan: GenerationPlan, turn: int = 0, asked: Mapping[Passage, list[str]] | None = None) -> list[Task]:
    """The requests of one round, in the plan's order; `asked` holds the questions that earlier rounds yielded."""
    prompt, count = plan.prompt, plan.pairs_per_passage
    tasks: list[Task] = []
    for passage in plan.order:
        if not prompt.by_sentence:
            earlier = _shortened((asked or {}).get(passage, ()))
            messages = prompt.messages(passage.text, section=passage.section, pairs=count, asked=earlier)
            tasks.append(Task(passage, messages, count))
            continue
        sentences = [passage.text[a:b] for a, b in sentences_of(passage.text) if _is_worth_asking(passage.text[a:b])]
        spread = [sentences[index] for index in spread_order(len(sentences))]
        chosen = spread[turn * count : (turn + 1) * count]
        for number, sentence in enumerate(chosen, 1):
            messages = prompt.messages(passage.text, section=passage.section, sentence=sentence)
            tasks.append(Task(passage, messages, 1, number == len(chosen)))
    return tasks


def _shortened(questions: Sequence[str]) -> list[str]:
    """The latest questions that fit in ASKED_BYTES: whatever was answered, the prompt stays as long as foretold."""
    kept, room = [], ASKED_BYTES
    for question in reversed(questions):
        room -= len(question.encode("utf-8", "surrogatepass")) + len("\n- ")
        if room < 0:
            break
        kept.append(question)
    return kept[::-1]


def _is_worth_asking(sentence: str) -> bool:
    is_question = sentence.rstrip("”’\"'」』)")[-1:] in "?？"
    return len(sentence) in SENTENCE_CHARACTERS and not is_question and not HEADING.search(sentence)


def estimate(plan: GenerationPlan, journal: Journal) -> Estimate:
    """What the first round needs, or as much of it as the wanted `pairs` need if every answer can be used."""
    wanted = plan.settings.pairs
    if wanted is not None and plan.joins_questions:
        wanted *= plan.pairs_per_passage
    passages: set[Passage] = set()
    calls = reused = tokens_in = tokens_out = expected = 0
    for task in tasks_of(plan):
        if wanted is not None and expected >= wanted:
            break
        expected += task.max_pairs
        passages.add(task.passage)
        if journal.get(key_of(plan.model_key, task.messages)) is not None:
            reused += 1
            continue
        calls += 1
        tokens_in += sum(assumed_tokens(message.text) + 4 for message in task.messages)
        tokens_out += min(task.max_pairs * PAIR_TOKENS, plan.max_tokens)
    most, cap = maximum(plan, journal), plan.settings.endpoint.max_cost if plan.settings.endpoint else None
    budget = Budget(plan.settings.endpoint) if plan.settings.endpoint else None
    call_s = SMALL_CALL_S if plan.prompt.by_sentence else CALL_S
    cost, max_cost = (
        (budget.cost(tokens_in, tokens_out), budget.cost(most.tokens_in, most.tokens_out)) if budget else (0.0, 0.0)
    )
    return Estimate(
        passages=len(passages),
        calls=calls,
        max_calls=most.requests,
        reused=reused,
        tokens_in=tokens_in,
        tokens_out=tokens_out,
        max_tokens_in=most.tokens_in,
        max_tokens_out=most.tokens_out,
        cost=cost if cap is None else min(cost, cap),
        max_cost=max_cost if cap is None else min(max_cost, cap),
        seconds=call_s * math.ceil(calls / plan.workers),
        assumed_call_s=call_s,
    )


def maximum(plan: GenerationPlan, journal: Journal) -> Maximum:
    """What a run cannot exceed: every round asked about every passage, every attempt made, some of them charged twice.

    `Budget` refuses what would exceed it, whatever an endpoint does.
    """
    prompts: list[int] = []
    for number in range(ROUNDS if plan.settings.pairs is not None else 1):
        asked = ASKED_BYTES + ASKED_LINE_BYTES if number and not plan.prompt.by_sentence else 0
        for task in tasks_of(plan, number):
            if asked or journal.get(key_of(plan.model_key, task.messages)) is None:
                prompts.append(max_prompt_tokens(task.messages) + asked)
    if not plan.settings.endpoint:
        return Maximum(len(prompts), sum(prompts), len(prompts) * plan.max_tokens, 0)
    repeats = max(MIN_REPEATS, math.ceil(REPEATED_FRAC * len(prompts))) if prompts else 0
    return Maximum(
        len(prompts) * ATTEMPTS,
        sum(prompts) + repeats * max(prompts, default=0),
        (len(prompts) + repeats) * plan.max_tokens,
        repeats,
    )


def assumed_tokens(text: str) -> int:
    """One token for each Chinese character, and for each four characters of other text."""
    chinese = sum("\u3000" <= character <= "\u9fff" for character in text)
    return chinese + math.ceil((len(text) - chinese) / 4)
