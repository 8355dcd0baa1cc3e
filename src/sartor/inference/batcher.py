"""Continuous batching: one thread runs a batch that requests join and leave between tokens."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from sartor.base.errors import PromptError
from sartor.base.i18n import tr
from sartor.base.settings import GenerationSettings
from sartor.inference.engine import Engine, Row
from sartor.inference.kv_cache import PreallocatedLayer
from sartor.inference.prefill import Prefill
from sartor.inference.requests import Progress, QueueFull, Request, Ticket, TokenLogprobs
from sartor.inference.sampling import next_tokens
from sartor.model.head import backbone, logits

TRIM_TOKENS = 64
"""Leading padding positions from which trimming a batch pays."""
CHARACTERS_PER_TOKEN = 16
"""A prompt with more characters for each token of the context is refused before it is tokenized."""


@dataclass(slots=True)
class _LiveBatch:
    """The running batch: tickets, cache, and the next inputs (ids_B1, mask_BT, positions_B1)."""

    tickets: list[Ticket] = field(default_factory=list)
    cache: Any = None
    ids: Any = None
    mask: Any = None
    positions: Any = None


class Batcher:
    """A queue of requests; those at its head join the batch while they want the weights that it runs with.

    Their prompts are read in pieces, and between two pieces the running rows get their next token.
    The first one that wants other weights holds back all behind it until the batch is empty, so that none starves and
    a batch never mixes weights.
    """

    def __init__(self, engine: Engine, *, max_rows: int = 64, max_tokens: int = 131072, max_waiting: int = 256):
        self.engine = engine
        self.max_rows, self.max_tokens, self.max_waiting = max_rows, max_tokens, max_waiting
        self._waiting: deque[Ticket] = deque()
        self._live = _LiveBatch()
        self._joining: list[Ticket] = []
        self._prefill: Prefill | None = None
        """The prompts of `_joining`, while they are read."""
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="sartor-batcher", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def running(self) -> int:
        return len(self._live.tickets) + len(self._joining)

    def require_fit(self, characters: int) -> None:
        """Raises: PromptError if a prompt of so many characters cannot fit into the context, whatever its tokens."""
        limit = self.engine.context_tokens
        if characters > limit * CHARACTERS_PER_TOKEN:
            raise PromptError(
                "The prompt has {count:,} characters; the model reads at most {limit:,} tokens.",
                tr("messages"),
                "Shorten the message, or start a new conversation.",
                count=characters,
                limit=limit,
            )

    def require_room(self, count: int) -> None:
        """Raises: QueueFull if `count` more requests do not fit into the queue now."""
        if self._closed or len(self._waiting) + count > self.max_waiting:
            what = tr("The queue is full: {count} requests are waiting.", count=len(self._waiting))
            raise QueueFull(what, tr("server"), tr("Try again later."))

    def submit(self, requests: Sequence[Request], on_progress: Callable[[int, Progress], None]) -> list[Ticket]:
        """Queue requests, all or none; `on_progress(index, …)` is called from the batcher's thread.

        Raises: QueueFull; PromptError for a prompt that fills the model's context.
        """
        tickets = []
        for index, request in enumerate(requests):
            room = self._room_for_answer(request)
            row = Row(request.number, list(request.prompt), min(request.generation.max_new_tokens, room), [])
            guide = request.grammar.start() if request.grammar else None
            tickets.append(Ticket(request, lambda progress, index=index: on_progress(index, progress), row, guide))  # type: ignore[misc]
        with self._changed:
            self.require_room(len(requests))
            self._waiting.extend(tickets)
            self._changed.notify()
        return tickets

    def _room_for_answer(self, request: Request) -> int:
        limit = self.engine.context_tokens
        if len(request.prompt) >= limit:
            raise PromptError(
                "The prompt has {count:,} tokens; the model's context has {limit:,}.",
                tr("messages"),
                "Shorten the message, or start a new conversation.",
                count=len(request.prompt),
                limit=limit,
            )
        return limit - len(request.prompt)

    def close(self) -> None:
        """Cancel all requests and end the thread."""
        with self._changed:
            self._closed = True
            for ticket in (*self._waiting, *self._joining, *self._live.tickets):
                ticket.cancel()
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not (self._waiting or self.running or self._closed):
                    self._changed.wait()
                if self._closed and not (self._waiting or self.running):
                    return
                if not self._joining:
                    self._joining = self._admit()
            try:
                self._remove([ticket for ticket in self._live.tickets if ticket.cancelled], "cancelled")
                joined = bool(self._joining) and self._read_on()
                if self._live.tickets and not joined:
                    self._step()
            except (
                Exception
            ) as error:  # the thread must outlive a failed batch: its clients get the error, others go on
                self._fail([*self._joining, *self._live.tickets], error)

    def _admit(self) -> list[Ticket]:
        """Take the tickets at the head of the queue that may join now; drop cancelled ones."""
        joining: list[Ticket] = []
        live = self._live.tickets
        longest = max((len(t.row.prompt) + t.row.limit for t in live), default=0)
        can_join = not live or all(isinstance(layer, PreallocatedLayer) for layer in self._live.cache.layers)
        while self._waiting:
            ticket = self._waiting[0]
            first = (joining or live or [ticket])[0]
            longest = max(longest, len(ticket.row.prompt) + ticket.row.limit)
            rows = len(live) + len(joining) + 1
            if not ticket.cancelled and (
                not can_join
                or ticket.request.weights != first.request.weights
                or (rows > 1 and (rows > self.max_rows or rows * longest > self.max_tokens))
            ):
                break
            self._waiting.popleft()
            if ticket.cancelled:
                self._finish(ticket, "cancelled")
            else:
                joining.append(ticket)
        return joining

    @torch.inference_mode()
    def _read_on(self) -> bool:
        """Read one more piece of the joining prompts, unless all are cancelled; whether they have joined the batch."""
        if all(ticket.cancelled for ticket in self._joining):
            for ticket in self._joining:
                self._finish(ticket, "cancelled")
            self._joining, self._prefill = [], None
            return False
        if self._prefill is None:
            self.engine.weights.use(self._joining[0].request.weights)
            self._prefill = Prefill.of(self.engine, [ticket.row.prompt for ticket in self._joining])
        self._prefill.read(self._forward)
        if not self._prefill.whole:
            return False
        self._join(self._joining, self._prefill)
        self._joining, self._prefill = [], None
        return True

    @torch.inference_mode()
    def _join(self, joining: list[Ticket], read: Prefill) -> None:
        """Append new rows, whose prompts have been read, to the batch."""
        engine, live, cache, mask_BT = self.engine, self._live, read.cache, read.mask
        if live.tickets:
            for mine, theirs in zip(live.cache.layers, cache.layers, strict=True):
                mine.join(theirs)
            # The running rows' next input is not in the cache yet: their mask is one longer than it.
            old, length = live.mask[:, :-1], max(live.mask.shape[1] - 1, mask_BT.shape[1])
            mask = mask_BT.new_zeros(len(live.tickets) + len(joining), length)
            mask[: len(live.tickets), length - old.shape[1] :] = old
            mask[len(live.tickets) :, length - mask_BT.shape[1] :] = mask_BT
        else:
            live.cache, mask = cache, mask_BT
            live.ids = live.positions = mask_BT.new_empty(0, 1)
        chosen = self._choose(joining, logits(engine.model, read.hidden))
        live.tickets = [*live.tickets, *joining]
        live.ids = torch.cat([live.ids, chosen[:, None]])
        live.positions = torch.cat([live.positions, read.positions[:, -1:] + 1])
        live.mask = torch.cat([mask, mask.new_ones(mask.shape[0], 1)], dim=1)
        self._remove([ticket for ticket in joining if _finished(ticket)])

    @torch.inference_mode()
    def _step(self) -> None:
        """Decode one token for every row."""
        live = self._live
        output = self._forward(live.ids, live.mask, live.positions, live.cache)
        chosen = self._choose(live.tickets, logits(self.engine.model, output.last_hidden_state[:, -1]))
        live.ids = chosen[:, None]
        live.mask = torch.cat([live.mask, live.mask.new_ones(live.mask.shape[0], 1)], dim=1)
        live.positions = live.positions + 1
        self._remove([ticket for ticket in live.tickets if _finished(ticket)])

    def _forward(self, ids: Tensor, mask: Tensor, positions: Tensor, cache: Any) -> Any:
        return backbone(self.engine.model)(
            input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True
        )

    def _choose(self, tickets: list[Ticket], logits_BV: Tensor) -> Tensor:
        """Choose each row's next token by its own settings, and report its progress."""
        chosen = torch.empty(len(tickets), dtype=torch.long, device=logits_BV.device)
        groups: dict[Any, list[int]] = {}
        for place, ticket in enumerate(tickets):
            groups.setdefault(_sampling(ticket.request.generation), []).append(place)
        penalised = _with_grammars(tickets, _with_penalties(tickets, logits_BV))
        for places in groups.values():
            members = [tickets[place] for place in places]
            settings = members[0].request.generation
            keys = [(m.request.seed, m.request.number, len(m.row.ids)) for m in members]
            seen = [m.row.prompt + m.row.ids for m in members] if settings.repetition_penalty != 1.0 else []
            chosen[places] = next_tokens(penalised[places], settings, seen, keys)
        wanted = [place for place, ticket in enumerate(tickets) if ticket.request.top_logprobs is not None]
        logprobs = _logprobs(logits_BV[wanted], chosen[wanted], [tickets[place] for place in wanted]) if wanted else {}
        for ticket, token in zip(tickets, chosen.tolist(), strict=True):
            self._take(ticket, token)
            if not _finished(ticket):
                text, safe = self.engine.safe_text(ticket.row, ticket.request.generation)
                _notify(ticket, Progress(text[:safe], logprobs.get(ticket)))
            elif (last := logprobs.get(ticket)) is not None:
                _notify(ticket, Progress("", last))
        return chosen

    def _take(self, ticket: Ticket, token: int) -> None:
        """Append a token. A complete answer ends; one whose grammar cannot be followed any further fails alone."""
        self.engine.take(ticket.row, token, ticket.request.generation)
        if ticket.guide is None or ticket.row.stop_reason == "stop":
            return
        ticket.guide.take(token)
        if ticket.guide.done:
            ticket.row.stop_reason, ticket.row.text = "stop", self.engine.text_of(ticket.row.ids)
        elif ticket.guide.failed and not ticket.cancelled:
            _notify(ticket, Progress("", error=f"The grammar cannot be followed: {ticket.guide.failed}", refused=True))
            ticket.cancel()

    def _remove(self, leaving: list[Ticket], reason: str = "") -> None:
        """Report these rows' answers, drop them from the batch, and trim padding that no row needs anymore."""
        live = self._live
        for ticket in leaving:
            self._finish(ticket, reason)
        if not leaving:
            return
        gone = set(map(id, leaving))
        kept = [place for place, ticket in enumerate(live.tickets) if id(ticket) not in gone]
        live.tickets = [live.tickets[place] for place in kept]
        if not kept:
            self._live = _LiveBatch()
            return
        index = torch.tensor(kept, device=live.mask.device)
        live.cache.batch_select_indices(index)
        live.ids, live.mask, live.positions = live.ids[index], live.mask[index], live.positions[index]
        spare = live.mask.shape[1] - 1 - int(live.positions.max())
        if spare >= TRIM_TOKENS and all(isinstance(layer, PreallocatedLayer) for layer in live.cache.layers):
            for layer in live.cache.layers:
                layer.drop(spare)
            live.mask = live.mask[:, spare:]

    def _finish(self, ticket: Ticket, reason: str) -> None:
        if reason == "cancelled" and not _finished(ticket):
            ticket.row.stop_reason = "cancelled"
        answer = self.engine.answer_of(ticket.row, ticket.request.generation)
        _notify(ticket, Progress(self.engine.final_text(ticket.row), answer=answer))

    def _fail(self, tickets: list[Ticket], error: Exception) -> None:
        self._live, self._joining, self._prefill = _LiveBatch(), [], None
        for ticket in {id(ticket): ticket for ticket in tickets}.values():
            _notify(ticket, Progress("", error=f"{type(error).__name__}: {error}"))


def _finished(ticket: Ticket) -> bool:
    return ticket.row.stop_reason == "stop" or len(ticket.row.ids) >= ticket.row.limit


def _notify(ticket: Ticket, progress: Progress) -> None:
    try:
        ticket.on_progress(progress)
    except Exception:  # its listener is gone (a closed event loop): the others' batch goes on
        ticket.cancel()


def _sampling(settings: GenerationSettings) -> tuple[Any, ...]:
    if not settings.do_sample or settings.temperature == 0:
        return (False, settings.repetition_penalty)
    return (True, settings.repetition_penalty, settings.temperature, settings.top_p, settings.top_k)


def _with_penalties(tickets: list[Ticket], logits_BV: Tensor) -> Tensor:
    """OpenAI's penalties: the logit of each token in the answer − presence − frequency · its count."""
    wanted = [p for p, t in enumerate(tickets) if t.request.presence_penalty or t.request.frequency_penalty]
    if not wanted:
        return logits_BV
    scores = logits_BV.float().clone()
    for place in wanted:
        request, ids = tickets[place].request, tickets[place].row.ids
        counts = torch.bincount(torch.tensor(ids, dtype=torch.long), minlength=scores.shape[1]).to(scores.device)
        scores[place] -= request.presence_penalty * (counts > 0) + request.frequency_penalty * counts
    return scores


def _with_grammars(tickets: list[Ticket], logits_BV: Tensor) -> Tensor:
    """Minus infinity for every token that would leave an answer's grammar."""
    wanted = [place for place, ticket in enumerate(tickets) if ticket.guide is not None and not ticket.cancelled]
    if not wanted:
        return logits_BV
    scores = logits_BV.float().clone()
    for place in wanted:
        guide = tickets[place].guide
        allowed = guide.allowed(scores.shape[1]) if guide else None
        if allowed is not None and bool(allowed.any()):
            scores[place].masked_fill_(~allowed.to(scores.device), float("-inf"))
    return scores


def _logprobs(logits_BV: Tensor, chosen: Tensor, tickets: list[Ticket]) -> dict[Ticket, TokenLogprobs]:
    values = logits_BV.float().log_softmax(dim=-1)
    most = max(ticket.request.top_logprobs or 0 for ticket in tickets)
    top = values.topk(max(most, 1), dim=-1)
    found = {}
    for place, ticket in enumerate(tickets):
        count, id = ticket.request.top_logprobs or 0, int(chosen[place])
        listed = zip(top.indices[place, :count].tolist(), top.values[place, :count].tolist(), strict=True)
        found[ticket] = TokenLogprobs(id, float(values[place, id]), tuple(listed))
    return found
