"""Generates grounded pairs: sends requests that the journal cannot answer, and takes answers in a fixed order."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from sartor.base.errors import EndpointError
from sartor.base.forecast import Forecast
from sartor.base.i18n import Text
from sartor.base.types import Completion, Message
from sartor.qa_generation.budget import BudgetExceeded
from sartor.qa_generation.journal import Journal, key_of
from sartor.qa_generation.pairs import DuplicateFilter, GroundedPair, Passage, RejectedPair, Turn, joined, parse
from sartor.qa_generation.requests_plan import ROUNDS, GenerationPlan, Task, tasks_of

MAX_FAILURES_IN_A_ROW = 5
"""After so many failed requests in a row no more are sent: the endpoint is out of order."""
StopReason = Literal["enough", "requested", "cap", "endpoint"]
Complete: TypeAlias = "Callable[[Sequence[Message]], Completion]"
Timed: TypeAlias = "tuple[Completion, float]"
"""An answer and the seconds it took."""


@dataclass(frozen=True, slots=True)
class GenerationOutcome:
    """Pairs, rejected pairs, and the passages whose requests failed; the next run sends those again.

    `stopped` says why some requests were not sent: `enough` pairs, stop `requested`, the spending `cap`, or an
    `endpoint` that failed several times in a row; `left` counts them. Tokens are those of this run, as reported.
    """

    pairs: tuple[GroundedPair, ...]
    rejected: tuple[RejectedPair, ...]
    failed: tuple[tuple[Passage, Text], ...]
    requests: int
    reused: int
    stopped: StopReason | None = None
    left: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    per_passage_counts: bool = True
    """Whether another `per_chunk` would ask for other pairs: the small model's conversations have a fixed length."""


@dataclass(frozen=True, slots=True)
class Hooks:
    """How the caller follows and stops a run; `progress` gets what is done and the total."""

    stop: threading.Event = field(default_factory=threading.Event)
    on_pair: Callable[[GroundedPair], None] | None = None
    on_forecast: Callable[[float], None] | None = None
    """Gets the seconds that the whole run will take, from the first answer on."""
    progress: Callable[[int, int | None], None] | None = None


def generate(
    plan: GenerationPlan, complete: Complete, journal: Journal, hooks: Hooks | None = None
) -> GenerationOutcome:
    """Ask about every passage once, or in up to ROUNDS rounds until there are as many pairs as wanted.

    The pairs have one order, whichever answer arrives first. An EndpointError fails its request alone and is not
    journaled. Requests in flight when the run ends are waited for and journaled, because they are paid for.
    """
    run = _Run(plan, complete, journal, hooks or Hooks())
    for number in range(ROUNDS if plan.settings.pairs is not None else 1):
        tasks = tasks_of(plan, number, run.questions)
        if number and not plan.prompt.by_sentence:  # a passage that yielded nothing is not asked again
            tasks = [task for task in tasks if run.questions.get(task.passage)]
        if run.stopped or not tasks:
            break
        try:
            run.round(tasks)
        except BaseException:
            run.hooks.stop.set()
            raise
    return run.outcome()


@dataclass(slots=True)
class _Run:
    """The state of a run; only the thread that called `generate` changes it.

    A task waits in `queue` with its answer, or with the future of it; answers are taken at the head of the queue only.
    """

    plan: GenerationPlan
    complete: Complete
    journal: Journal
    hooks: Hooks
    queue: deque[tuple[Task, str | Future[Timed]]] = field(default_factory=deque)
    in_flight: dict[Future[Timed], Task] = field(default_factory=dict)
    pairs: list[GroundedPair] = field(default_factory=list)
    rejected: list[RejectedPair] = field(default_factory=list)
    failed: list[tuple[Passage, Text]] = field(default_factory=list)
    questions: dict[Passage, list[str]] = field(default_factory=dict)
    turns: list[Turn] = field(default_factory=list)
    """Of the conversation that is being joined."""
    is_duplicate: DuplicateFilter = field(default_factory=DuplicateFilter)
    requests: int = 0
    reused: int = 0
    failures_in_a_row: int = 0
    stopped: StopReason | None = None
    left: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    forecast: Forecast = field(init=False)
    unsent: deque[Task] = field(default_factory=deque)
    taken: int = 0
    """Answers whose pairs have been used."""

    def __post_init__(self) -> None:
        self.forecast = Forecast(self.plan.workers)

    def round(self, tasks: Sequence[Task]) -> None:
        """Send all tasks; at most `workers` are in flight, and no more than the pairs still wanted need."""
        self.unsent, done = deque(tasks), 0
        unsent = self.unsent
        pool = ThreadPoolExecutor(self.plan.workers, thread_name_prefix="generate")
        try:
            while True:
                done += self._take_answers()
                self._report(done, len(tasks))
                if not self.queue and (not unsent or self._has_ended()):
                    break
                self._send(unsent, pool)
                if self.queue and isinstance(self.queue[0][1], Future):
                    for future in wait(self.in_flight, return_when=FIRST_COMPLETED).done:
                        self._keep(self.in_flight.pop(future), future)
            self.left = len(unsent)
        finally:
            pool.shutdown(cancel_futures=True)
            for future, task in self.in_flight.items():
                with contextlib.suppress(Exception, CancelledError):  # the error that ended the run is being raised
                    self._keep(task, future)
            self.in_flight.clear()

    def _send(self, unsent: deque[Task], pool: ThreadPoolExecutor) -> None:
        """Fill the queue; an answer from the journal is taken before more is sent."""
        while unsent and len(self.in_flight) < self.plan.workers and not self._has_ended():
            if self._enough(sum(task.max_pairs for task, _ in self.queue)):
                return
            task = unsent.popleft()
            known = self.journal.get(self._key(task))
            if known is not None:
                self.queue.append((task, known))
                return
            future = pool.submit(_timed, self.complete, task.messages)
            self.in_flight[future] = task
            self.queue.append((task, future))

    def _keep(self, task: Task, future: Future[Timed]) -> None:
        """Journal an answer as soon as it arrives, even if an earlier one is still awaited."""
        try:
            answer, seconds = future.result()
        except (EndpointError, BudgetExceeded):
            return
        self.forecast.answered(seconds)
        self.journal.add(self._key(task), answer.text)
        self.requests += 1
        self.tokens_in += answer.prompt_tokens
        self.tokens_out += answer.tokens

    def _take_answers(self) -> int:
        """Take the finished tasks at the head of the queue. Returns how many."""
        count = 0
        while self.queue and (isinstance(self.queue[0][1], str) or self.queue[0][1].done()):
            task, answer = self.queue.popleft()
            count += 1
            self.taken += 1
            if isinstance(answer, str):
                self.reused += 1
                self._take_answer(task, answer)
            else:
                if self.in_flight.pop(answer, None):
                    self._keep(task, answer)
                self._take_result(task, answer)
        return count

    def _take_result(self, task: Task, future: Future[Timed]) -> None:
        try:
            answer, _ = future.result()
        except BudgetExceeded:
            self.stopped = self.stopped or "cap"
            self._end_conversation(task)
        except EndpointError as error:
            if not self.hooks.stop.is_set():
                self.failed.append((task.passage, error.what))
            self.failures_in_a_row += 1
            self._end_conversation(task)
        else:
            self.failures_in_a_row = 0
            self._take_answer(task, answer.text)

    def _take_answer(self, task: Task, answer: str) -> None:
        joins = self.plan.joins_questions
        good, bad = parse(answer, task.passage, task.max_pairs, self.plan.settings.multi_turn and not joins)
        self.rejected += bad
        if joins:
            self.turns += [turn for pair in good for turn in pair.turns]
            self._end_conversation(task)
            return
        for pair in good:
            self._take_pair(pair)

    def _end_conversation(self, task: Task) -> None:
        """After the last task on a passage, a small model's questions on it become one conversation."""
        if self.plan.joins_questions and task.last:
            turns, self.turns = self.turns, []
            if len(turns) >= 2:
                self._take_pair(joined(turns, task.passage))
            elif turns:
                self.rejected.append(RejectedPair("too-few-turns", turns[0].question, task.passage))

    def _take_pair(self, pair: GroundedPair) -> None:
        self.questions.setdefault(pair.passage, []).append(pair.question)
        if self.is_duplicate("\n".join(turn.question for turn in pair.turns)):
            self.rejected.append(RejectedPair("near-duplicate", pair.question, pair.passage))
        elif not self._enough():
            self.pairs.append(pair)
            if self.hooks.on_pair:
                self.hooks.on_pair(pair)

    def _enough(self, expected: int = 0) -> bool:
        wanted = self.plan.settings.pairs
        return wanted is not None and len(self.pairs) + expected >= wanted

    def _has_ended(self) -> bool:
        """Whether no more requests are sent; sets `stopped` to the reason."""
        if self.stopped is None:
            if self._enough():
                self.stopped = "enough"
            elif self.hooks.stop.is_set():
                self.stopped = "requested"
            elif self.failures_in_a_row >= MAX_FAILURES_IN_A_ROW:
                self.stopped = "endpoint"
        return self.stopped is not None

    def _answers_left(self) -> int:
        """How many more this round will get; with `pairs`, as many as they need if answers go on as they are."""
        left, wanted = len(self.unsent) + len(self.in_flight), self.plan.settings.pairs
        if wanted is None or not self.pairs:
            return left
        return min(left, math.ceil((wanted - len(self.pairs)) * self.taken / len(self.pairs)))

    def _report(self, done: int, tasks: int) -> None:
        if self.hooks.on_forecast and self.forecast.is_due():
            self.hooks.on_forecast(self.forecast.total_s(self._answers_left()))
        wanted = self.plan.settings.pairs
        if self.hooks.progress:
            self.hooks.progress(*((done, tasks) if wanted is None else (len(self.pairs), wanted)))

    def _key(self, task: Task) -> str:
        return key_of(self.plan.model_key, task.messages)

    def outcome(self) -> GenerationOutcome:
        return GenerationOutcome(
            tuple(self.pairs),
            tuple(self.rejected),
            tuple(self.failed),
            self.requests,
            self.reused,
            self.stopped,
            self.left,
            self.tokens_in,
            self.tokens_out,
            not self.plan.joins_questions,
        )


def _timed(complete: Complete, messages: Sequence[Message]) -> Timed:
    began = time.perf_counter()
    return complete(messages), time.perf_counter() - began
