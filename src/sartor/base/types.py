"""The values that modules exchange: origins, messages, examples, ledgers, tokens, predictions, scores."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from sartor.base.i18n import Text
from sartor.base.reasons import fix_of, reason_of

Role = Literal["system", "user", "assistant", "tool"]
IntArray: TypeAlias = npt.NDArray[np.int32]
IGNORE_INDEX = -100
"""The label of a token that is not trained on; torch's cross_entropy ignores this value by default."""


@dataclass(frozen=True, slots=True)
class Place:
    """A row of a file, and its line if the file format has lines; both count from 1."""

    file: str
    row: int
    line: int | None = None

    def __str__(self) -> str:
        line = f", line {self.line}" if self.line is not None else ""
        return f"{self.file}, row {self.row}{line}"


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a row comes from. `row` counts from 1; `line` and `byte` are set if the file format has them."""

    dataset: str
    file: str
    row: int
    line: int | None = None
    byte: int | None = None
    section: str | None = None
    """The source section (chapter) of a generated row; the split and the verdict treat a section as one cluster."""
    imported_from: Place | None = None
    """The row of the person's own file that an import made this row from."""

    @property
    def id(self) -> str:
        """The row's id in every file that Sartor writes: `dataset:row`, or `dataset/file:row` inside a folder."""
        return f"{self.dataset}:{self.row}" if "/" not in self.file else f"{self.dataset}/{self.file}:{self.row}"

    def __str__(self) -> str:
        return f"{self.imported_from} ({self.id})" if self.imported_from else str(Place(self.file, self.row, self.line))


@dataclass(frozen=True, slots=True)
class RawRow:
    """A row as read from a file, not yet parsed. `row` counts from 1; `fault` says why `value` could not be read."""

    row: int
    line: int | None
    value: Any
    fault: Text | None = None
    text: str | None = None
    """A row with a fault as the file has it, if that is text."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One tool call of an assistant; `arguments` is parsed JSON, never a JSON string."""

    name: str
    arguments: Mapping[str, Any]
    id: str | None = None


@dataclass(frozen=True, slots=True)
class Message:
    """One turn. `train` matters for assistant turns only; `reasoning` is the text inside `<think>…</think>`."""

    role: Role
    text: str
    tool_calls: tuple[ToolCall, ...] = ()
    reasoning: str | None = None
    train: bool = True
    tool_call_id: str | None = None
    """Of a tool's result: the id of the call that it answers."""
    name: str | None = None
    """Of a tool's result: the tool. Of any other turn: who speaks, where the data say so."""


Tool: TypeAlias = Mapping[str, Any]
"""One tool's JSON schema in OpenAI's format: `{"type": "function", "function": {"name": …, "parameters": …}}`."""


@dataclass(frozen=True, slots=True)
class Demonstration:
    """A conversation whose assistant turns are trained on."""

    messages: tuple[Message, ...]
    origin: Origin
    tools: tuple[Tool, ...] = ()


@dataclass(frozen=True, slots=True)
class Preference:
    """A conversation with a chosen and a rejected answer."""

    prompt: tuple[Message, ...]
    chosen: Message
    rejected: Message
    origin: Origin
    tools: tuple[Tool, ...] = ()


@dataclass(frozen=True, slots=True)
class Feedback:
    """A conversation whose last answer was rated good or bad."""

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
    """A row that is not used, and why; the messages of each `code` are in `base/reasons.py`."""

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
    """A remark about a dataset that skips no row (an unmapped column, a blank `tools` field)."""

    code: str
    params: Mapping[str, object] = dataclasses.field(default_factory=dict)
    count: int = 1

    def __str__(self) -> str:
        reason, fix = reason_of(self.code, self.params), fix_of(self.code, self.params)
        rows = f" ({self.count} rows)" if self.count > 1 else ""
        return f"{reason}{rows}{f' {fix}' if fix else ''}"


@dataclass(frozen=True, slots=True)
class Ledger:
    """What became of each row: `read = training + held_out + left_out + skipped`, which `balanced` checks.

    `left_out` rows were excluded on request (`max_samples`, `num_samples`, a split slice). `repeats` counts the extra
    uses of rows by oversampling and is not part of the sum.
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


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of a rendered conversation; only `control` text may become control tokens."""

    text: str
    control: bool
    train: bool


@dataclass(frozen=True, slots=True, eq=False)
class TokenSequence:
    """Token ids and the half-open spans of them that are trained on; `labels` is derived.

    For example ids [5, 6, 7] with label_spans ((1, 3),) have the labels [−100, 6, 7].
    """

    ids: IntArray
    label_spans: tuple[tuple[int, int], ...]
    origin: Origin | None = None
    part: int = 0
    """Its number among the sequences of its row, from 0: a conversation or a document may become several."""

    @property
    def labels(self) -> IntArray:
        """The id where it is trained on, −100 elsewhere; not shifted by one."""
        labels = np.full_like(self.ids, IGNORE_INDEX)
        for start, stop in self.label_spans:
            labels[start:stop] = self.ids[start:stop]
        return labels

    @property
    def label_tokens(self) -> int:
        """How many tokens are predicted in training; never the first of a sequence, which has no context."""
        return sum(stop - max(start, 1) for start, stop in self.label_spans)

    @property
    def prompt_tokens(self) -> int:
        """How many tokens are context only."""
        return len(self.ids) - sum(stop - start for start, stop in self.label_spans)

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
    """A preference as tokens: both sequences contain the prompt, only the answers are trained on."""

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


StopReason = Literal["stop", "length", "cancelled", "error"]


@dataclass(frozen=True, slots=True)
class Completion:
    """A model's answer to a conversation; token counts are 0 where the server does not report them."""

    text: str
    prompt_tokens: int = 0
    tokens: int = 0
    reasoning: str | None = None
    stop_reason: StopReason = "stop"


@dataclass(frozen=True, slots=True)
class Prediction:
    """A model's answer to the prompt of one row."""

    id: str
    prompt: str
    """The rendered prompt, as tokenized."""
    question: str
    """The last user turn, as plain text."""
    reference: str | None
    text: str
    """The text that is scored: without reasoning and control tokens."""
    stop_reason: StopReason
    prompt_tokens: int
    tokens: int
    reasoning: str | None = None
    seen_in_training: bool = False
    section: str | None = None
    loss: float | None = None
    """Mean loss on the reference answer in nats per token, if measured."""


@dataclass(frozen=True, slots=True)
class Score:
    """One metric over predictions: its value, possible range, number of pairs, and how exactly it was computed."""

    name: str
    value: float
    range: tuple[float, float]
    n: int
    signature: str
    higher_is_better: bool = True
    per_row: tuple[float, ...] = ()
    """The score of each pair in the given order, if the metric is a mean over pairs; else empty."""
    left_out: int = 0
    """Pairs without a reference."""
    failed: tuple[int, ...] = ()
    """Numbers, from 1, of the pairs for which the metric gave no finite number; they are not in `value`."""
