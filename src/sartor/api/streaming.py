"""Rows with `streaming: true`: held-out rows first, a sample for the plan, the rest encoded during training."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

from sartor.api.prepare_data import PreparedRows, check_skipped_limit, first_reason, load_named, split_seed
from sartor.base.config import RunConfig
from sartor.base.errors import ConfigError, DataError
from sartor.base.types import Example, Ledger, Note, Skipped
from sartor.data.load import SourceFile
from sartor.data.streaming import ExampleStream, open_stream, shuffled
from sartor.prompt.encode import Encoder
from sartor.prompt.row_stream import RowStream

SAMPLE = 1000
"""Rows that plan and pre-flight use, and the minimum before too many skipped rows stop a run."""


def check_settings(config: RunConfig) -> None:
    """Raises: ConfigError for settings that streaming does not support."""
    data = config.data
    if config.train.max_steps <= 0:
        raise ConfigError("Streaming needs max_steps.", "streaming", "Set max_steps.")
    if 0 < data.val_size < 1:
        raise ConfigError(
            "A fractional val_size is not supported with streaming.",
            "val_size",
            "Set a number of rows, or eval_dataset.",
        )
    if data.max_samples:
        raise ConfigError(
            "max_samples is not supported with streaming.", "max_samples", "Remove it; max_steps limits a stream."
        )
    if not data.dataset:
        raise ConfigError("No dataset given.", data.dataset_dir, "Set dataset=NAME, a name in dataset_info.json.")


def prepare_stream(config: RunConfig, encoder: Encoder) -> PreparedRows:
    """Hold out the first `val_size` rows and stream the rest, encoded during training.

    The ledger is that of the sample; `streamed_ledger` gives that of the rows used.

    Raises: ConfigError as `check_settings` does; DataError as `prepare_rows` does.
    """
    check_settings(config)
    data = config.data
    source = open_stream(data, stage=config.method.stage, seed=split_seed(config), permissions=config.permissions)
    held_out, files, other = list(islice(source.rows(_drop_skipped), round(data.val_size))), source.files, Ledger()
    if data.eval_dataset:
        loaded = load_named(config, data.eval_dataset)
        held_out, files, other = held_out + loaded.examples, (*files, *loaded.files), loaded.ledger
    held_out_rows = encoder.encode_all(held_out)
    skipped = {skipped.origin.id for skipped in held_out_rows.skipped}
    held_out = [example for example in held_out if example.origin.id not in skipped]
    other = replace(other, training=0, held_out=len(held_out), skipped=(*other.skipped, *held_out_rows.skipped))
    first_pass = _Pass(source, config)
    sample = encoder.encode_all(islice(first_pass.rows(), SAMPLE))
    first_pass.skipped += sample.skipped
    used = {row.origin.id for row in sample.encoded if row.origin}
    ledger = first_pass.ledger(other, len(used))
    if not used:
        raise DataError("No training rows are left.", ", ".join(data.dataset), first_reason(ledger))
    check_skipped_limit(ledger, data.max_skipped)
    notes = (Note("streamed", {"rows": ledger.read}), *encoder.take_notes())
    stream_pass = _Pass(source, config)
    seed = config.train.seed if config.train.data_seed is None else config.train.data_seed
    batch = config.train.per_device_train_batch_size * config.train.gradient_accumulation_steps
    batch *= int(os.environ.get("WORLD_SIZE", "1"))
    stream = RowStream(
        lambda turn: shuffled(stream_pass.rows(), data.buffer_size, seed, turn),
        encoder,
        config.train.max_steps * batch,
        behind=batch + 1,
        on_skipped=stream_pass.skip,
    )
    prepared = PreparedRows(
        [],
        held_out,
        stream,
        held_out_rows.encoded,
        replace(ledger, notes=notes),
        files,
        sample=sample.encoded,
        file_names=_known_by(files, config),
    )

    def so_far(position: int) -> PreparedRows:
        uses = stream.release_before(position)
        found = stream_pass.ledger(other, len(uses), sum(uses.values()) - len(uses))
        return replace(prepared, ledger=replace(found, notes=encoder.take_notes()), train_names=tuple(uses))

    return replace(prepared, streamed_ledger=so_far)


@dataclass(slots=True)
class _Pass:
    """Reads the rows after the held-out ones, and counts them on the first pass."""

    source: ExampleStream
    config: RunConfig
    skipped: list[Skipped] = field(default_factory=list)
    read: int = 0
    passes: int = 0

    def rows(self) -> Iterator[Example]:
        first, held_out = self.passes == 0, round(self.config.data.val_size)
        self.passes += 1
        for number, example in enumerate(self.source.rows(self._unreadable if first else _drop_skipped), 1):
            self.read += first
            if number > held_out:
                yield example

    def skip(self, row: Skipped) -> None:
        """Raises: DataError when too many rows are skipped."""
        self.skipped.append(row)
        if self.read >= SAMPLE:
            check_skipped_limit(self.ledger(Ledger(), 0), self.config.data.max_skipped)

    def _unreadable(self, row: Skipped) -> None:
        self.read += 1
        self.skip(row)

    def ledger(self, other: Ledger, used: int, repeats: int = 0) -> Ledger:
        """The ledger with the other rows; rows read but not used were left out because the run ended."""
        read, skipped = self.read + other.read, (*other.skipped, *self.skipped)
        rest = read - used - other.held_out - len(skipped)
        return Ledger(read, used, other.held_out, rest, repeats, skipped)


def _drop_skipped(row: Skipped) -> None:
    """Counted in another pass."""


def _known_by(files: Sequence[SourceFile], config: RunConfig) -> str:
    """A hash of what decides the row at each position: the files and the settings that order them."""
    names = {"dataset", "val_size", "mix_strategy", "interleave_probs", "buffer_size", "split_seed"}
    decided = [
        [file.sha256 for file in files],
        config.data.model_dump(include=names, mode="json"),
        [config.train.seed, config.train.data_seed],
        config.prompt.model_dump(include={"cutoff_len", "overlong", "history", "mask_history"}),
    ]
    return hashlib.sha256(json.dumps(decided).encode()).hexdigest()
