"""Conversations to ids and labels: one rendering, one pass of the tokenizer, borders from the template; no I/O."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np

from sartor.base.errors import ConfigError, PromptError
from sartor.base.process import gc_paused
from sartor.base.settings import PromptSettings
from sartor.base.types import (
    Demonstration,
    Document,
    Encoded,
    Example,
    Feedback,
    Message,
    Note,
    Origin,
    Pair,
    Preference,
    Skipped,
    TokenSequence,
    Tool,
    UnpairedSequence,
)
from sartor.prompt.label_spans import EncodeFailure, EncodeRequest, SpanEncoder
from sartor.prompt.messages import message_of
from sartor.prompt.template import Template
from sartor.prompt.tokenizer import Codec, Tokenizer

Progress = Callable[[int, int | None], None]
MAX_TOKENIZER_CHUNKS = 2
"""Chunks in the tokenizer at a time: one is cut into ids while Python renders and labels the other."""
FIRST_CHUNK, CHUNK_ROWS = 64, 1024
CHUNK_CHARACTERS = 2_000_000
"""What is rendered and encoded at once: memory stays bounded, both cores stay busy; the first chunk is quick."""


@dataclass(frozen=True, slots=True)
class EncodedRows:
    """What became of some examples, in their order: tokens, or a reason."""

    encoded: Sequence[Encoded]
    skipped: list[Skipped]
    notes: tuple[Note, ...] = ()


_Chunk: TypeAlias = list[tuple[Example, list[EncodeRequest] | EncodeFailure]]


class Encoder:
    """Examples to tokens with one tokenizer, one template and the prompt settings; train, predict and chat share it."""

    def __init__(self, tokenizer: Tokenizer, template: Template, settings: PromptSettings | None = None) -> None:
        settings = settings or PromptSettings()
        if settings.mask_history and settings.train_on_prompt:
            raise ConfigError("mask_history and train_on_prompt exclude each other.", "settings", "Choose one.")
        self.tokenizer = tokenizer
        self.template = template
        self.settings = settings
        self.codec: Codec = template.codec
        self.spans = SpanEncoder(template)
        self._notes: Counter[str] = Counter()
        with_special = self.codec.backend.encode("a", add_special_tokens=True).ids
        plain = self.codec.ids("a")
        # What the tokenizer itself puts before a plain text (a beginning-of-text token, or nothing).
        self._document_start = with_special[: with_special.index(plain[0])]

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """The ids at which generation stops: what ends a turn (first), what ends a tool call, the tokenizer's end."""
        ids = [self.codec.scan(end)[-1].id for end in self.template.ends]
        own = self.tokenizer.eos_token_id
        return tuple(dict.fromkeys(ids if own is None else [*ids, own]))

    def prompt(self, messages: Sequence[Message], tools: Sequence[Tool] = ()) -> TokenSequence:
        """The ids after which the model writes its next turn; nothing is learned. Raises: PromptError."""
        try:
            job = EncodeRequest(self.template.lay_out(messages, tools, generation=True), frozenset(), False)
            done = self.spans.encode([job])[0]
        except UnicodeEncodeError as error:
            done = _surrogate_failure(error)
        if isinstance(done, EncodeFailure):
            skipped = Skipped(Origin("prompt", "prompt", 1), done.code, None, done.params)
            raise PromptError(skipped.reason, self.template.name, skipped.fix)
        return done

    def encode(self, example: Example) -> Encoded | Skipped:
        """One example as tokens, or why not. A document is not split here, whatever `overlong` says."""
        chunk = [(example, self.requests(example))]
        return next(self._finish(chunk, self.spans.encode(_all_requests(chunk)), split=False))

    def stream(self, examples: Iterable[Example]) -> Iterator[Encoded | Skipped]:
        """Many examples in their order, lazily, in chunks that one call of the Rust tokenizer encodes."""
        with ThreadPoolExecutor(MAX_TOKENIZER_CHUNKS) as threads:
            under_way: deque[tuple[_Chunk, Future[list[TokenSequence | EncodeFailure]]]] = deque()
            for chunk in self._chunks(examples):
                under_way.append((chunk, threads.submit(self.spans.encode, _all_requests(chunk))))
                if len(under_way) > MAX_TOKENIZER_CHUNKS:
                    done, tokens = under_way.popleft()
                    yield from self._finish(done, tokens.result(), split=True)
            for done, tokens in under_way:
                yield from self._finish(done, tokens.result(), split=True)

    @gc_paused()
    def encode_all(self, examples: Iterable[Example], progress: Progress | None = None) -> EncodedRows:
        """Every example as tokens or with its reason; `progress` is told how many of how many are done."""
        total = len(examples) if isinstance(examples, Sequence) else None
        encoded: list[Encoded] = []
        skipped: list[Skipped] = []
        for outcome in self.stream(_with_progress(examples, total, progress)):
            if isinstance(outcome, Skipped):
                skipped.append(outcome)
            else:
                encoded.append(outcome)
        return EncodedRows(encoded, skipped, self.take_notes())

    def take_notes(self) -> tuple[Note, ...]:
        """What happened to rows since the last call without losing any (reasoning kept as text), counted."""
        notes = (Note(code, {"template": self.template.name}, count) for code, count in self._notes.items())
        taken = (*self.template.notes, *notes)
        self._notes.clear()
        return taken

    def _noted(self, job: EncodeRequest, done: TokenSequence | EncodeFailure) -> TokenSequence | EncodeFailure:
        if job.rendered is not None and job.rendered.notes:
            self._notes.update(note.code for note in job.rendered.notes)
        return done

    def _chunks(self, examples: Iterable[Example]) -> Iterator[_Chunk]:
        """The examples' rendered texts, a bounded number at a time; the first chunks are small."""
        chunk: _Chunk = []
        characters, limit = 0, FIRST_CHUNK
        for example in examples:
            jobs = self.requests(example)
            chunk.append((example, jobs))
            characters += 0 if isinstance(jobs, EncodeFailure) else sum(len(job.text) for job in jobs)
            if len(chunk) >= limit or characters >= CHUNK_CHARACTERS:
                yield chunk
                chunk, characters, limit = [], 0, min(2 * limit, CHUNK_ROWS)
        if chunk:
            yield chunk

    def requests(self, example: Example) -> list[EncodeRequest] | EncodeFailure:
        """The texts to encode for an example: one, or two of a preference."""
        try:
            if isinstance(example, Document):
                return [EncodeRequest.document(example.text)]
            if isinstance(example, Preference):
                turns = (example.chosen, example.rejected)
                return [self._last_turn((*example.prompt, turn), example.tools) for turn in turns]
            if isinstance(example, Feedback):
                return [self._last_turn(example.messages, example.tools)]
            return [self._request(example.messages, example.tools)]
        except PromptError as refusal:
            return EncodeFailure("not-renderable", {"template": self.template.name, "reason": refusal.what})
        except UnicodeEncodeError as error:
            return _surrogate_failure(error)

    def _request(self, messages: Sequence[Message], tools: Sequence[Tool]) -> EncodeRequest:
        answers = [number for number, message in enumerate(messages) if message.role == "assistant"]
        wanted = answers[-1:] if self.settings.mask_history else answers
        learned = frozenset(number for number in wanted if messages[number].train)
        return EncodeRequest(self.template.lay_out(messages, tools), learned, self.settings.train_on_prompt)

    def _last_turn(self, messages: Sequence[Message], tools: Sequence[Tool]) -> EncodeRequest:
        if not messages or messages[-1].role != "assistant":
            raise PromptError("the last message is no answer")
        return EncodeRequest(self.template.lay_out(messages, tools), frozenset({len(messages) - 1}), False)

    def _finish(
        self, chunk: _Chunk, tokens: list[TokenSequence | EncodeFailure], *, split: bool
    ) -> Iterator[Encoded | Skipped]:
        """Put the examples of an encoded chunk together again."""
        left = iter(tokens)
        for example, jobs in chunk:
            done = jobs if isinstance(jobs, EncodeFailure) else [self._noted(job, next(left)) for job in jobs]
            if isinstance(example, Document) and not isinstance(done, EncodeFailure):
                yield from self._of_document(done[0], example.origin, split)
            else:
                yield self._of_example(example, done)

    def _of_example(
        self, example: Example, done: list[TokenSequence | EncodeFailure] | EncodeFailure
    ) -> Encoded | Skipped:
        fitted = [done] if isinstance(done, EncodeFailure) else [self._fit(sequence) for sequence in done]
        sequences: list[TokenSequence] = []
        for outcome in fitted:
            if isinstance(outcome, EncodeFailure):
                return Skipped(example.origin, outcome.code, None, outcome.params)
            sequences.append(TokenSequence(outcome.ids, outcome.label_spans, example.origin))
        if isinstance(example, Preference):
            return Pair(sequences[0], sequences[1], example.origin)
        if isinstance(example, Feedback):
            return UnpairedSequence(sequences[0], example.good, example.origin)
        return sequences[0]

    def _fit(self, sequence: TokenSequence | EncodeFailure) -> TokenSequence | EncodeFailure:
        """The sequence within `cutoff_len`, with something to learn, or the reason why not."""
        if isinstance(sequence, EncodeFailure):
            return sequence
        if not sequence.label_tokens:
            return EncodeFailure("no-label", {})
        limit = self.settings.cutoff_len
        if len(sequence) <= limit:
            return sequence
        sizes = {"tokens": len(sequence), "cutoff": limit}
        if self.settings.overlong != "truncate":
            return EncodeFailure("overlong", sizes)
        cut = _truncate(sequence, limit)
        return cut if cut.label_tokens else EncodeFailure("overlong-prompt", sizes)

    def _of_document(
        self, done: TokenSequence | EncodeFailure, origin: Origin, split: bool
    ) -> Iterator[Encoded | Skipped]:
        if isinstance(done, TokenSequence):
            eos = self.tokenizer.eos_token_id
            end = [] if eos is None else [eos]
            ids = np.asarray([*self._document_start, *done.ids.tolist(), *end], np.int32)
            done = TokenSequence(ids, ((0, len(ids)),))
            limit = self.settings.cutoff_len
            if split and self.settings.overlong == "split" and len(done) > limit:
                # A last piece of one token predicts nothing: the piece before it ends the document.
                for start in range(0, len(ids) - 1, limit):
                    piece = ids[start : start + limit]
                    yield TokenSequence(piece, ((0, len(piece)),), origin)
                return
        whole = self.settings.overlong == "split" and not split
        outcome = done if whole else self._fit(done)
        if isinstance(outcome, EncodeFailure):
            yield Skipped(origin, outcome.code, None, outcome.params)
        else:
            yield replace(outcome, origin=origin)


def encode(
    messages: Iterable[Message | Mapping[str, Any]],
    tokenizer: Tokenizer,
    tools: Sequence[Tool] | None = None,
    template: str | Template | None = None,
    *,
    enable_thinking: bool | None = None,
    mask_history: bool = False,
    train_on_prompt: bool = False,
) -> TokenSequence:
    """Messages (or OpenAI-style dicts) as ids and learned spans, exactly as the trainer gets them.

    `template` is a name, a Template, or None for the model's own. Nothing is cut.
    Raises: PromptError when there is nothing to learn or the template refuses.

    Example:
        >>> from transformers import AutoTokenizer
        >>> turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
        >>> encoded = sartor.encode(turns, AutoTokenizer.from_pretrained(model))
        >>> 0 < encoded.label_tokens < len(encoded)
        True
    """
    if not isinstance(template, Template):
        template = Template.from_tokenizer(tokenizer, template, enable_thinking=enable_thinking)
    settings = PromptSettings(mask_history=mask_history, train_on_prompt=train_on_prompt, cutoff_len=1 << 40)
    parsed = tuple(message_of(message) for message in messages)
    outcome = Encoder(tokenizer, template, settings).encode(
        Demonstration(parsed, Origin("messages", "messages", 1), tuple(tools or ()))
    )
    if isinstance(outcome, Skipped):
        raise PromptError(outcome.reason, "messages", outcome.fix)
    assert isinstance(outcome, TokenSequence)
    return replace(outcome, origin=None)


def _surrogate_failure(error: UnicodeEncodeError) -> EncodeFailure:
    return EncodeFailure("not-text", {"character": f"U+{ord(error.object[error.start]):04X}"})


def _all_requests(chunk: _Chunk) -> list[EncodeRequest]:
    return [job for _, jobs in chunk if not isinstance(jobs, EncodeFailure) for job in jobs]


def _truncate(sequence: TokenSequence, limit: int) -> TokenSequence:
    """The first `limit` tokens; what stood beyond them, an end token too, is not learned."""
    learned = tuple((start, min(stop, limit)) for start, stop in sequence.label_spans if start < limit)
    return replace(sequence, ids=sequence.ids[:limit], label_spans=learned)


def _with_progress(examples: Iterable[Example], total: int | None, progress: Progress | None) -> Iterator[Example]:
    """The examples, with `progress` told every thousand and at the end."""
    done = 0
    for done, example in enumerate(examples, 1):
        yield example
        if progress and done % 1000 == 0:
            progress(done, total)
    if progress:
        progress(done, total)
