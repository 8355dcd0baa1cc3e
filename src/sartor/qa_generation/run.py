"""Documents to grounded pairs: asks what the journal does not hold yet; the completing function is handed in."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from sartor.base.errors import EndpointError, RunError
from sartor.base.types import Message
from sartor.qa_generation.journal import Journal, key_of
from sartor.qa_generation.pairs import DuplicateFilter, GroundedPair, Passage, RejectedPair, Turn, joined, parse
from sartor.qa_generation.prompt_files import Prompt
from sartor.qa_generation.requests_plan import ROUNDS, Task, pairs_per_passage, spread_order, tasks_of

MAX_FAILURES_IN_A_ROW = 5
"""So many requests fail one after the other, and no more are made: the endpoint is out of order."""
Stopped = Literal["enough", "requested", "cap", "endpoint"]
Complete: TypeAlias = "Callable[[Sequence[Message]], Completion]"
Timed: TypeAlias = "tuple[Completion, float]"


class BudgetExceeded(RunError):
    """The next request could pass the cap on spending."""


@dataclass(frozen=True, slots=True)
class Completion:
    """What a model answered; tokens are 0 where it does not tell them."""

    text: str
    prompt_tokens: int = 0
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class GenerationOutcome:
    """Pairs, what was refused, and the passages that no answer came for; those are asked again by the next run.

    `stopped` says why not everything was asked: `enough` pairs, `asked` to stop, the `cap` on spending, or an
    `endpoint` that failed several times on end; `left` requests were not made for it. Tokens are those of this run,
    as the endpoint told them.
    """

    pairs: tuple[GroundedPair, ...]
    rejected: tuple[RejectedPair, ...]
    failed: tuple[tuple[Passage, str], ...]
    requests: int
    reused: int
    stopped: Stopped | None = None
    left: int = 0
    tokens_in: int = 0
    tokens_out: int = 0


@dataclass(slots=True)
class _Work:
    """What the run has come to; only the thread that called `generate` changes it."""

    journal: Journal
    model: str
    wanted: int | None
    multi_turn: bool
    gather: bool
    on_pair: Callable[[GroundedPair], None] | None
    on_measured: Callable[[float], None] | None
    pairs: list[GroundedPair] = field(default_factory=list)
    rejected: list[RejectedPair] = field(default_factory=list)
    failed: list[tuple[Passage, str]] = field(default_factory=list)
    questions: dict[Passage, list[str]] = field(default_factory=dict)
    turns: list[Turn] = field(default_factory=list)
    repeats: DuplicateFilter = field(default_factory=DuplicateFilter)
    requests: int = 0
    reused: int = 0
    bad_in_a_row: int = 0
    stopped: Stopped | None = None
    left: int = 0
    tokens_in: int = 0
    tokens_out: int = 0

    def enough(self, expected: int = 0) -> bool:
        return self.wanted is not None and len(self.pairs) + expected >= self.wanted

    def settle(self, task: Task, answer: str) -> None:
        """Take the pairs of an answer, in the order of the tasks, whenever it came."""
        good, bad = parse(answer, task.passage, task.max_pairs, self.multi_turn and not self.gather)
        self.rejected += bad
        if self.gather:
            self.turns += [turn for pair in good for turn in pair.turns]
            self.close(task)
            return
        for pair in good:
            self.take(pair)

    def close(self, task: Task) -> None:
        """A small model's pairs on one passage become a conversation when the last of them is there."""
        if self.gather and task.last:
            turns, self.turns = self.turns, []
            if len(turns) >= 2:
                self.take(joined(turns, task.passage))
            elif turns:
                self.rejected.append(RejectedPair("too-few-turns", turns[0].question, task.passage))

    def take(self, pair: GroundedPair) -> None:
        self.questions.setdefault(pair.passage, []).append(pair.question)
        if self.repeats("\n".join(turn.question for turn in pair.turns)):
            self.rejected.append(RejectedPair("near-duplicate", pair.question, pair.passage))
        elif not self.enough():
            self.pairs.append(pair)
            if self.on_pair:
                self.on_pair(pair)

    def keep(self, task: Task, future: Future[Timed]) -> None:
        """Journal an answer as soon as it is there, whatever is still waited for before it."""
        try:
            answer, seconds = future.result()
        except (EndpointError, BudgetExceeded):
            return
        if self.on_measured and not self.requests:
            self.on_measured(seconds)
        self.journal.add(key_of(self.model, task.messages), answer.text)
        self.requests += 1
        self.tokens_in += answer.prompt_tokens
        self.tokens_out += answer.tokens


def generate(
    passages: Sequence[Passage],
    complete: Complete,
    journal: Journal,
    *,
    model: str,
    prompt: Prompt,
    per_chunk: int | None = None,
    pairs: int | None = None,
    multi_turn: bool = False,
    workers: int = 1,
    stop: threading.Event | None = None,
    on_pair: Callable[[GroundedPair], None] | None = None,
    on_measured: Callable[[float], None] | None = None,
    progress: Callable[[int, int | None], None] | None = None,
) -> GenerationOutcome:
    """Ask for each passage, or until there are `pairs`, spread over the passages; `workers` requests at once.

    The pairs come in one order, whichever answer comes first. An EndpointError fails its request alone and is never
    journalled; what is in flight when the run ends is waited for and kept, for it is paid for. `on_measured` hears
    the seconds of the first answer that was not in the journal.
    """
    gather = multi_turn and prompt.by_sentence
    work = _Work(journal, model, pairs, multi_turn, gather, on_pair, on_measured)
    each = pairs_per_passage(pairs, per_chunk, len(passages), gather)
    order = (
        [passages[place] for place in spread_order(len(passages))] if pairs is not None and passages else list(passages)
    )
    stop = stop or threading.Event()
    for turn in range(ROUNDS if pairs is not None else 1):
        tasks = tasks_of(order, prompt, each, turn, work.questions)
        if turn and not prompt.by_sentence:
            tasks = [task for task in tasks if work.questions.get(task.passage)]
        if work.stopped or not tasks:
            break
        try:
            _round(work, tasks, complete, workers, stop, progress)
        except BaseException:
            stop.set()
            raise
    return GenerationOutcome(
        tuple(work.pairs),
        tuple(work.rejected),
        tuple(work.failed),
        work.requests,
        work.reused,
        work.stopped,
        work.left,
        work.tokens_in,
        work.tokens_out,
    )


def _round(
    work: _Work,
    tasks: Sequence[Task],
    complete: Complete,
    workers: int,
    stop: threading.Event,
    progress: Callable[[int, int | None], None] | None,
) -> None:
    """All tasks of a round: at most `workers` are in flight, and no more than the pairs still wanted need."""
    line: deque[tuple[Task, str | Future[Timed]]] = deque()
    flying: dict[Future[Timed], Task] = {}
    coming = iter(tasks)
    upcoming = next(coming, None)
    done = 0
    pool = ThreadPoolExecutor(workers, thread_name_prefix="asking")
    try:
        while True:
            done += _settled(work, line, flying, stop)
            if progress:
                progress(*((done, len(tasks)) if work.wanted is None else (len(work.pairs), work.wanted)))
            if not line and (upcoming is None or _ended(work, stop)):
                break
            while upcoming is not None and len(flying) < workers and not _ended(work, stop):
                if work.enough(sum(task.max_pairs for task, _ in line)):
                    break
                known = work.journal.get(key_of(work.model, upcoming.messages))
                found = pool.submit(_timed, complete, upcoming.messages) if known is None else known
                if isinstance(found, Future):
                    flying[found] = upcoming
                line.append((upcoming, found))
                upcoming = next(coming, None)
                if isinstance(found, str):
                    break
            if line and not isinstance(line[0][1], str):
                for future in wait(flying, return_when=FIRST_COMPLETED).done:
                    work.keep(flying.pop(future), future)
        work.left = len([upcoming, *coming]) if upcoming is not None else 0
    finally:
        pool.shutdown(cancel_futures=True)
        for future, task in flying.items():
            with contextlib.suppress(Exception, CancelledError):  # what ended the run is told already
                work.keep(task, future)


def _ended(work: _Work, stop: threading.Event) -> bool:
    """Nothing more is asked: there are enough pairs, or someone stopped it, or money or the endpoint ran out."""
    if work.stopped is None:
        if work.enough():
            work.stopped = "enough"
        elif stop.is_set():
            work.stopped = "requested"
        elif work.bad_in_a_row >= MAX_FAILURES_IN_A_ROW:
            work.stopped = "endpoint"
    return work.stopped is not None


def _settled(
    work: _Work, line: deque[tuple[Task, str | Future[Timed]]], flying: dict[Future[Timed], Task], stop: threading.Event
) -> int:
    """Take the answers at the head of the line that are there, journalled first. Returns how many."""
    count = 0
    while line and (isinstance(line[0][1], str) or line[0][1].done()):
        task, found = line.popleft()
        count += 1
        if isinstance(found, str):
            work.reused += 1
            work.settle(task, found)
            continue
        if flying.pop(found, None):
            work.keep(task, found)
        try:
            answer, _ = found.result()
        except BudgetExceeded:
            work.stopped = work.stopped or "cap"
            work.close(task)
        except EndpointError as error:
            if not stop.is_set():
                work.failed.append((task.passage, str(error.what)))
            work.bad_in_a_row += 1
            work.close(task)
        else:
            work.bad_in_a_row = 0
            work.settle(task, answer.text)
    return count


def _timed(complete: Complete, messages: Sequence[Message]) -> Timed:
    began = time.perf_counter()
    return complete(messages), time.perf_counter() - began
