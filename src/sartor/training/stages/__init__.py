"""One file per training stage: what its rows are, how they become batches, and the loss that is minimized.

A file here, or an entry point in the group `sartor.stages`, holds `PLUGIN`, an instance of a `Stage` subclass. Nothing
else has to change for a new stage: settings, command line, page, plan, loop and pre-flight read its declaration.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from sartor.base.errors import DataError
from sartor.base.i18n import Text
from sartor.base.registry import Registry
from sartor.base.settings import MethodSettings
from sartor.base.types import Encoded, Pair, TokenSequence, UnpairedSequence

if TYPE_CHECKING:  # torch stays out until a stage is used: its name alone is checked without it
    from torch import Tensor, nn

    from sartor.model.batch import Batch
    from sartor.training.objective import Objective

Row = TypeVar("Row", TokenSequence, Pair, UnpairedSequence)


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """How a global batch is cut into micro-batches; the numbers come from the plan."""

    max_rows: int
    """Rows in a micro-batch; a pair is one row."""
    max_tokens: int
    """Padded tokens in a micro-batch."""
    packing: bool
    """Several examples in one row, for the stages that can."""
    pack_tokens: int
    """The longest packed row."""
    never_pack: bool = False
    """The model would mix the examples of a packed row."""


class Stage(ABC, Generic[Row]):
    """What a training stage declares and does.

    The loss of an optimizer step is `sum of objective(batch) over the micro-batches / sum of weight(row) over the
    global batch`, so it must not depend on how the global batch was cut.
    """

    name: str
    """As in `stage: sft`; also the file's name."""
    label: Text
    """A few words for a menu, made with `tr`."""
    description: Text
    """One sentence for the documentation and the page, made with `tr`."""
    accepts: type[Row]
    """The kind of encoded row that it trains on."""
    row_error: Text
    """What is wrong when the dataset has rows of another kind."""
    row_fix: Text
    """What to change in dataset_info.json then."""
    head: Literal["text", "reward"] = "text"
    """The model's head: next tokens, or one score (transformers' sequence classifier with one label)."""
    packs: bool = False
    """Whether rows are packed without being asked to."""
    deepspeed: bool = False
    """Whether it has been tested with DeepSpeed; refused otherwise."""
    options: tuple[str, ...] = ()
    """The method settings that only some stages read, and this one does."""
    examples: tuple[Mapping[str, Any], ...] = ()
    """Settings that train; a test parses each of them, and the reference tables show them."""

    def needs_reference(self, method: MethodSettings) -> bool:
        """Whether the loss compares with a reference model, which takes memory. Default: no."""
        return False

    @abstractmethod
    def objective(self, model: nn.Module, method: MethodSettings, other: nn.Module | None = None) -> Objective:
        """The module that the loop trains: the model with the loss around it.

        It is built before a checkpoint's weights are loaded, so the reference is the model as the run began. `other` is
        the model that `ref_model` names, if any.
        """

    @abstractmethod
    def weight(self, row: Row) -> int:
        """What the row counts in the mean: its label tokens, or 1 where the loss is per row."""

    @abstractmethod
    def batches(self, rows: Sequence[Row], chosen: Sequence[int], limits: BatchLimits, pad_id: int) -> list[Batch]:
        """The micro-batches of `rows[i] for i in chosen`, on the CPU; every chosen row is in exactly one."""

    def score(self, model: nn.Module, batch: Batch) -> Tensor:
        """What the loss is made of, summed over the batch (a scalar), which is compared with the model's own forward
        pass before training. Default: −ln p of the label tokens.
        """
        from sartor.model.head import sequence_logps

        return -sequence_logps(model, batch)[0].sum()

    def kl_batches(
        self, rows: Sequence[Row], chosen: Sequence[int], limits: BatchLimits, pad_id: int, share: slice
    ) -> list[Batch] | None:
        """The batches whose mean log-ratio to the reference estimates a KL term for the global batch, which the loop
        then puts into `batch.kl`; `share` picks this process's part. Default: None, the loss has no such term.
        """
        return None

    def check_rows(self, rows: Iterable[Encoded]) -> None:
        """Raises: DataError naming the first row of another kind."""
        for row in rows:
            if not isinstance(row, self.accepts):
                raise DataError(self.row_error, str(row.origin), self.row_fix)


STAGES: Registry[Stage[Any]] = Registry("stage", "sartor.training.stages", Stage)
