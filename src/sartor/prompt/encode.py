"""Encodes conversations as token ids and label spans, one row at a time or in chunks."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeAlias

import numpy as np

from sartor.base.errors import ConfigError, PromptError
from sartor.base.i18n import tr
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
from sartor.prompt.history import AnswerGroup, History
from sartor.prompt.label_spans import EncodeFailure, EncodeRequest, SpanEncoder
from sartor.prompt.row_notes import RowNotes
from sartor.prompt.template import Template
from sartor.prompt.tokenizer import Codec, Tokenizer

Progress = Callable[[int, int | None], None]
MAX_TOKENIZER_CHUNKS = 2
"""Chunks in the tokenizer at a time: Rust threads tokenize one while Python renders and labels the other."""
FIRST_CHUNK, CHUNK_ROWS = 64, 1024
CHUNK_CHARACTERS = 2_000_000
"""How much is rendered and encoded at once. This bounds memory; the first chunk is small to deliver rows early."""


@dataclass(frozen=True, slots=True)
class EncodedRows:
    """The outcome of encoding some examples: the encoded rows in order, and the skipped ones with their reasons."""

    encoded: Sequence[Encoded]
    skipped: list[Skipped]
    notes: tuple[Note, ...] = ()


_Chunk: TypeAlias = list[tuple[Example, list[EncodeRequest] | EncodeFailure]]


class Encoder:
    """Encodes examples with one tokenizer, template and prompt settings; shared by train, predict and chat.

    `spans` and `history` may be given to reuse what they already know about the template's layouts.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        template: Template,
        settings: PromptSettings | None = None,
        spans: SpanEncoder | None = None,
        history: History | None = None,
    ) -> None:
        settings = settings or PromptSettings()
        if settings.mask_history and settings.train_on_prompt:
            raise ConfigError(
                "mask_history and train_on_prompt cannot be combined.", tr("settings"), "Remove one of them."
            )
        self.tokenizer = tokenizer
        self.template = template
        self.settings = settings
        self.codec: Codec = template.codec
        self.spans = spans or SpanEncoder(template)
        self.history = history or History(template)
        self._notes = RowNotes(template.name)

    @cached_property
    def _document_start(self) -> list[int]:
        """What the tokenizer itself puts before plain text (a beginning-of-text token, or nothing)."""
        with_special = self.codec.backend.encode("a", add_special_tokens=True).ids
        plain = self.codec.ids("a")
        return list(with_special[: with_special.index(plain[0])])

    @cached_property
    def stop_ids(self) -> tuple[int, ...]:
        """The ids that stop generation: the end of a turn (first), of a tool call, what the model's files declare."""
        ids = [self.codec.scan(end)[-1].id for end in (*self.template.ends, *self.template.declared_ends)]
        eos = self.tokenizer.eos_token_id
        return tuple(dict.fromkeys(ids if eos is None else [*ids, eos]))

    @cached_property
    def _message_end(self) -> tuple[int, list[int]] | None:
        found = self.template.message_end
        return None if found is None else (self.codec.scan(found.end)[-1].id, self.codec.ids(found.header))

    def ends_turn(self, ids: Sequence[int]) -> bool:
        """Whether generation stops behind the last of the ids generated so far."""
        if ids[-1] in self.stop_ids:
            return True
        if self._message_end is None or ids[-1] != self._message_end[0]:
            return False
        end, header = self._message_end
        start = next((n + 1 for n in range(len(ids) - 2, -1, -1) if ids[n] == end), 0)
        message = list(ids[start:-1])
        return any(message[n : n + len(header)] == header for n in range(len(message) - len(header) + 1))

    def prompt(self, messages: Sequence[Message], tools: Sequence[Tool] = ()) -> TokenSequence:
        """The ids after which the model generates its next turn; no labels. Raises: PromptError."""
        try:
            request = EncodeRequest(self.template.lay_out(messages, tools, generation=True), frozenset(), False)
            done = self.spans.encode([request])[0]
        except UnicodeEncodeError as error:
            done = _surrogate_failure(error)
        if isinstance(done, EncodeFailure):
            skipped = Skipped(Origin("prompt", "prompt", 1), done.code, None, done.params)
            raise PromptError(skipped.reason, self.template.name, skipped.fix, code=skipped.code)
        return done

    def encode(self, example: Example) -> Encoded | Skipped:
        """Encode an example that becomes one sequence (see `sequences`), or say why it is skipped.

        Raises: PromptError for a conversation that becomes several.
        """
        first, *others = self.sequences(example)
        if others:
            raise PromptError(
                "The template renders earlier answers differently: the conversation becomes {count} sequences.",
                self.template.name,
                "Call `sartor.encode_sequences`, which returns them all, or set history to last or as_rendered.",
                code="several-sequences",
                count=len(others) + 1,
            )
        return first

    def sequences(self, example: Example) -> list[Encoded | Skipped]:
        """All that an example becomes. A document is not split here, even with `overlong: split`."""
        chunk = [(example, self.requests(example))]
        return list(self._finish(chunk, self.spans.encode(_all_requests(chunk)), split=False))

    def stream(self, examples: Iterable[Example]) -> Iterator[Encoded | Skipped]:
        """Encode examples lazily and in order, in chunks that take one call of the Rust tokenizer each."""
        with ThreadPoolExecutor(MAX_TOKENIZER_CHUNKS) as threads:
            pending: deque[tuple[_Chunk, Future[list[TokenSequence | EncodeFailure]]]] = deque()
            for chunk in self._chunks(examples):
                pending.append((chunk, threads.submit(self.spans.encode, _all_requests(chunk))))
                if len(pending) > MAX_TOKENIZER_CHUNKS:
                    done, tokens = pending.popleft()
                    yield from self._finish(done, tokens.result(), split=True)
            for done, tokens in pending:
                yield from self._finish(done, tokens.result(), split=True)

    @gc_paused()
    def encode_all(self, examples: Iterable[Example], progress: Progress | None = None) -> EncodedRows:
        """Encode all examples; `progress(done, total)` is called every thousand rows and at the end."""
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
        """Notes on rows encoded since the last call (such as reasoning kept as text), each with a count."""
        return (*self.template.notes, *self._notes.take())

    def _chunks(self, examples: Iterable[Example]) -> Iterator[_Chunk]:
        """The examples with their encode requests, a bounded amount at a time; the first chunks are small."""
        chunk: _Chunk = []
        characters, limit = 0, FIRST_CHUNK
        for example in examples:
            requests = self.requests(example)
            chunk.append((example, requests))
            characters += 0 if isinstance(requests, EncodeFailure) else sum(len(request.text) for request in requests)
            if len(chunk) >= limit or characters >= CHUNK_CHARACTERS:
                yield chunk
                chunk, characters, limit = [], 0, min(2 * limit, CHUNK_ROWS)
        if chunk:
            yield chunk

    def requests(self, example: Example) -> list[EncodeRequest] | EncodeFailure:
        """The texts to encode for an example: two for a preference, one or several for a conversation, else one."""
        try:
            if isinstance(example, Document):
                return [EncodeRequest.document(example.text)]
            if isinstance(example, Preference):
                turns = (example.chosen, example.rejected)
                return [self._last_turn((*example.prompt, turn), example.tools) for turn in turns]
            if isinstance(example, Feedback):
                return [self._last_turn(example.messages, example.tools)]
            return self._conversation(example.messages, example.tools)
        except PromptError as refusal:
            return EncodeFailure("not-renderable", {"template": self.template.name, "reason": refusal.what})
        except UnicodeEncodeError as error:
            return _surrogate_failure(error)

    def _conversation(self, messages: Sequence[Message], tools: Sequence[Tool]) -> list[EncodeRequest]:
        answers = [number for number, message in enumerate(messages) if message.role == "assistant"]
        wanted = answers[-1:] if self.settings.mask_history or self.settings.history == "last" else answers
        wanted = [number for number in wanted if messages[number].train]
        if self.settings.history == "as_rendered" or not wanted:
            parts = [AnswerGroup(self.template.lay_out(messages, tools), frozenset(wanted))]
        else:
            parts = self.history.groups(messages, tools, wanted)
        learned_before = 0
        requests = []
        for part in parts:
            requests.append(self._request(part, messages, learned_before))
            learned_before = max(part.answers, default=-1) + 1
        return requests

    def _request(self, part: AnswerGroup, messages: Sequence[Message], learned_before: int = 0) -> EncodeRequest:
        """The request of a group. Raises: PromptError for an answer that cannot be learned there."""
        for turn in part.rendered.layout.turns:
            if turn.message in part.answers:
                self.template.require_turn(turn)
        return EncodeRequest(part.rendered, part.answers, self.settings.train_on_prompt, learned_before=learned_before)

    def _last_turn(self, messages: Sequence[Message], tools: Sequence[Tool]) -> EncodeRequest:
        if not messages or messages[-1].role != "assistant":
            raise PromptError("the last message is not from the assistant")
        rendered = self.template.lay_out_answer(messages, tools)
        self.template.require_turn(rendered.layout.turns[-1])
        return EncodeRequest(rendered, frozenset({len(messages) - 1}), False)

    def _finish(
        self, chunk: _Chunk, tokens: list[TokenSequence | EncodeFailure], *, split: bool
    ) -> Iterator[Encoded | Skipped]:
        """Match the token sequences of an encoded chunk with its examples."""
        remaining = iter(tokens)
        for example, requests in chunk:
            if isinstance(requests, EncodeFailure):
                yield Skipped(example.origin, requests.code, None, requests.params)
                continue
            done = [next(remaining) for _ in requests]
            if isinstance(example, Document):
                yield from self._of_document(done[0], example.origin, split)
                continue
            self._notes.rendered(requests)
            fitted = [self._fit(sequence) for sequence in done]
            if isinstance(example, Demonstration):
                yield from self._of_conversation(fitted, example.origin)
            else:
                yield self._of_example(example, fitted)

    def _of_conversation(
        self, fitted: list[TokenSequence | EncodeFailure], origin: Origin
    ) -> Iterator[TokenSequence | Skipped]:
        """Its sequences, without those that are longer than `cutoff_len`, as long as one is left."""
        usable = [sequence for sequence in fitted if isinstance(sequence, TokenSequence)]
        failed = [outcome for outcome in fitted if isinstance(outcome, EncodeFailure)]
        other = next((failure for failure in failed if "cutoff" not in failure.params), None)
        if other or not usable:
            failure = other or max(failed, key=lambda failure: int(str(failure.params["tokens"])))
            yield Skipped(origin, failure.code, None, failure.params)
            return
        if len(fitted) > 1:
            self._notes.split(usable, failed, origin)
        for part, sequence in enumerate(usable):
            yield TokenSequence(sequence.ids, sequence.label_spans, origin, part)

    def _of_example(
        self, example: Preference | Feedback, fitted: list[TokenSequence | EncodeFailure]
    ) -> Encoded | Skipped:
        sequences: list[TokenSequence] = []
        for outcome in fitted:
            if isinstance(outcome, EncodeFailure):
                return Skipped(example.origin, outcome.code, None, outcome.params)
            sequences.append(TokenSequence(outcome.ids, outcome.label_spans, example.origin))
        if isinstance(example, Preference):
            return Pair(sequences[0], sequences[1], example.origin)
        return UnpairedSequence(sequences[0], example.good, example.origin)

    def _fit(self, sequence: TokenSequence | EncodeFailure) -> TokenSequence | EncodeFailure:
        """The sequence, truncated to `cutoff_len` if the settings say so, or why it is unusable."""
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
                # A last piece of one token would predict nothing, so the piece before it is the last.
                for part, start in enumerate(range(0, len(ids) - 1, limit)):
                    piece = ids[start : start + limit]
                    yield TokenSequence(piece, ((0, len(piece)),), origin, part)
                return
        whole = self.settings.overlong == "split" and not split
        outcome = done if whole else self._fit(done)
        if isinstance(outcome, EncodeFailure):
            yield Skipped(origin, outcome.code, None, outcome.params)
        else:
            yield replace(outcome, origin=origin)


def _surrogate_failure(error: UnicodeEncodeError) -> EncodeFailure:
    return EncodeFailure("not-text", {"character": f"U+{ord(error.object[error.start]):04X}"})


def _all_requests(chunk: _Chunk) -> list[EncodeRequest]:
    return [request for _, requests in chunk if not isinstance(requests, EncodeFailure) for request in requests]


def _truncate(sequence: TokenSequence, limit: int) -> TokenSequence:
    """The first `limit` tokens; an end token beyond them is cut off too."""
    spans = tuple((start, min(stop, limit)) for start, stop in sequence.label_spans if start < limit)
    return replace(sequence, ids=sequence.ids[:limit], label_spans=spans)


def _with_progress(examples: Iterable[Example], total: int | None, progress: Progress | None) -> Iterator[Example]:
    """The examples, calling `progress` every thousand and at the end."""
    done = 0
    for done, example in enumerate(examples, 1):
        yield example
        if progress and done % 1000 == 0:
            progress(done, total)
    if progress:
        progress(done, total)
