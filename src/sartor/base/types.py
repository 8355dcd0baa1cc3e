"""The values that cross module borders: origins, messages, examples, ledgers, tokens, scores; nothing here does I/O."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from sartor.base.i18n import Text
from sartor.base.reasons import fix_of, reason_of

Role = Literal["system", "user", "assistant", "tool"]
IntArray: TypeAlias = npt.NDArray[np.int32]
IGNORE_INDEX = -100
"""The label of a token that is not learned; torch's cross_entropy ignores this value by default."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a row comes from. `row` counts from 1; `line` and `byte` are set where the file has them."""

    dataset: str
    file: str
    row: int
    line: int | None = None
    byte: int | None = None
    section: str | None = None
    """The source section (chapter) of a generated row; clusters of the split and of the verdict."""

    @property
    def id(self) -> str:
        """The row's name in every file that we write: `dataset:row`, or `dataset/file:row` within a folder."""
        return f"{self.dataset}:{self.row}" if "/" not in self.file else f"{self.dataset}/{self.file}:{self.row}"

    def __str__(self) -> str:
        line = f", line {self.line}" if self.line is not None else ""
        return f"{self.file}, row {self.row}{line}"


@dataclass(frozen=True, slots=True)
class RawRow:
    """`row` counts from 1; `line` where the file has lines; `fault` says why `value` could not be read."""

    row: int
    line: int | None
    value: Any
    fault: str | None = None


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call that an assistant makes; `arguments` is parsed JSON, never a string holding JSON."""

    name: str
    arguments: Mapping[str, Any]
    id: str | None = None


@dataclass(frozen=True, slots=True)
class Message:
    """One turn. `learn` matters for assistant turns only; `reasoning` is the text inside `<think>…</think>`."""

    role: Role
    text: str
    tool_calls: tuple[ToolCall, ...] = ()
    reasoning: str | None = None
    train: bool = True


Tool: TypeAlias = Mapping[str, Any]
"""One tool's JSON schema, in OpenAI's form: `{"type": "function", "function": {"name": …, "parameters": …}}`."""


@dataclass(frozen=True, slots=True)
class Demonstration:
    """A conversation to imitate."""

    messages: tuple[Message, ...]
    origin: Origin
    tools: tuple[Tool, ...] = ()


@dataclass(frozen=True, slots=True)
class Preference:
    """A conversation and two next turns, the first preferred."""

    prompt: tuple[Message, ...]
    chosen: Message
    rejected: Message
    origin: Origin
    tools: tuple[Tool, ...] = ()


@dataclass(frozen=True, slots=True)
class Feedback:
    """A conversation whose last answer was judged good or bad."""

    messages: tuple[Message, ...]
    good: bool
    origin: Origin
    tools: tuple[Tool, ...] = ()


@dataclass(frozen=True, slots=True)
class Document:
    """Plain text for pre-training."""

    text: str
    origin: Origin


Example: TypeAlias = Demonstration | Preference | Feedback | Document


@dataclass(frozen=True, slots=True)
class Skipped:
    """A row that is not used, and why. The texts of `reason` and `fix` are in `base/reasons.py` under `code`."""

    origin: Origin
    code: str
    field: str | None = None
    params: Mapping[str, object] = dataclasses.field(default_factory=dict)

    @property
    def reason(self) -> Text:
        return reason_of(self.code, self.params)

    @property
    def fix(self) -> Text:
        return fix_of(self.code, self.params)


@dataclass(frozen=True, slots=True)
class Note:
    """A remark about a dataset that loses no row (an unmapped column, a blank `tools` read as none)."""

    code: str
    params: Mapping[str, object] = dataclasses.field(default_factory=dict)
    count: int = 1

    def __str__(self) -> str:
        reason, fix = reason_of(self.code, self.params), fix_of(self.code, self.params)
        rows = f" ({self.count} rows)" if self.count > 1 else ""
        return f"{reason}{rows}{f' {fix}' if fix else ''}"


@dataclass(frozen=True, slots=True)
class Ledger:
    """Where each row went: `read = learned + held_out + left_out + skipped`; a property checked by `balanced`.

    `left_out` rows were left out by request (`max_samples`, `num_samples`, a split slice); `repeats` counts
    extra uses of a row by oversampling and is no part of the sum.
    """

    read: int = 0
    training: int = 0
    held_out: int = 0
    left_out: int = 0
    repeats: int = 0
    skipped: tuple[Skipped, ...] = ()
    notes: tuple[Note, ...] = ()

    def __add__(self, other: Ledger) -> Ledger:
        return Ledger(
            self.read + other.read,
            self.training + other.training,
            self.held_out + other.held_out,
            self.left_out + other.left_out,
            self.repeats + other.repeats,
            self.skipped + other.skipped,
            self.notes + other.notes,
        )

    @property
    def balanced(self) -> bool:
        return self.read == self.training + self.held_out + self.left_out + len(self.skipped)

    @property
    def skipped_frac(self) -> float:
        """Skipped rows as a fraction of the rows read, 0–1."""
        return len(self.skipped) / self.read if self.read else 0.0

    def with_skipped(self, more: Iterable[Skipped]) -> Ledger:
        """The ledger after a later layer (the encoder) gave up rows that were counted as learned."""
        lost = tuple(more)
        return replace(self, training=self.training - len(lost), skipped=self.skipped + lost)


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of a rendered conversation; `control` text may become control tokens, other text never does."""

    text: str
    control: bool
    train: bool


@dataclass(frozen=True, slots=True, eq=False)
class TokenSequence:
    """Token ids and the half-open spans of them that are learned; `labels` is derived."""

    ids: IntArray
    label_spans: tuple[tuple[int, int], ...]
    origin: Origin | None = None

    @property
    def labels(self) -> IntArray:
        """ids where learned, −100 elsewhere; not yet shifted by one."""
        labels = np.full_like(self.ids, IGNORE_INDEX)
        for start, stop in self.label_spans:
            labels[start:stop] = self.ids[start:stop]
        return labels

    @property
    def label_tokens(self) -> int:
        """How many tokens are learned; the first token of a sequence can never be (nothing predicts it)."""
        return sum(stop - max(start, 1) for start, stop in self.label_spans)

    def __len__(self) -> int:
        return len(self.ids)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, TokenSequence)
            and self.label_spans == other.label_spans
            and np.array_equal(self.ids, other.ids)
        )


@dataclass(frozen=True, slots=True)
class Pair:
    """A preference as tokens: the prompt stands in both, only the answers are learned."""

    chosen: TokenSequence
    rejected: TokenSequence
    origin: Origin | None = None


@dataclass(frozen=True, slots=True)
class UnpairedSequence:
    """Feedback as tokens."""

    sequence: TokenSequence
    good: bool
    origin: Origin | None = None


Encoded: TypeAlias = TokenSequence | Pair | UnpairedSequence


def token_sequences(row: Encoded) -> tuple[TokenSequence, ...]:
    """The token sequences of an encoded row: two of a Pair, one of any other."""
    if isinstance(row, Pair):
        return row.chosen, row.rejected
    return (row.sequence,) if isinstance(row, UnpairedSequence) else (row,)


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a model answered to one row's prompt."""

    id: str
    prompt: str
    """The rendered prompt, as it was tokenised."""
    question: str
    """The last turn of the person, plain."""
    reference: str | None
    text: str
    """The scored text: no reasoning, no control tokens."""
    stop_reason: Literal["stop", "length", "cancelled", "error"]
    prompt_tokens: int
    tokens: int
    reasoning: str | None = None
    seen_in_training: bool = False
    section: str | None = None
    loss: float | None = None
    """Nats per token of the reference, where it was measured."""


@dataclass(frozen=True, slots=True)
class Score:
    """One number about predictions: its value, the range it lives in, how many pairs, and exactly how it was made."""

    name: str
    value: float
    range: tuple[float, float]
    n: int
    signature: str
    higher_is_better: bool = True
    per_row: tuple[float, ...] = ()
    """The score of each pair in the order given, where the metric is a mean over pairs; else empty."""
    left_out: int = 0
    """Pairs without a reference."""
