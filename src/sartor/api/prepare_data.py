"""From settings to encoded rows: load, split, encode, and refuse when too many rows are skipped."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from sartor.base.config import RunConfig
from sartor.base.errors import ConfigError, DataError
from sartor.base.files import sha256_file
from sartor.base.i18n import tr
from sartor.base.process import gc_paused
from sartor.base.rundir import RunDir
from sartor.base.types import Encoded, Example, Ledger, Note, token_sequences
from sartor.data.load import Loaded, SourceFile, load_many
from sartor.data.split import Split, read_split, split_loaded
from sartor.prompt.encode import EncodedRows, Encoder
from sartor.prompt.row_stream import RowStream
from sartor.prompt.template import Template
from sartor.prompt.token_cache import encode_cached

Progress = Callable[[int, int | None], None]


@dataclass(frozen=True, slots=True)
class PreparedRows:
    """Training and held-out rows, as examples and as tokens, with their ledger."""

    train: list[Example]
    held_out: list[Example]
    train_ids: Sequence[Encoded]
    held_out_ids: Sequence[Encoded]
    ledger: Ledger
    files: tuple[SourceFile, ...]
    from_cache: bool = False
    """Whether the training tokens were read from the token cache."""
    sample: Sequence[Encoded] = ()
    """Streaming: the rows that the plan is based on."""
    file_names: str = ""
    """Streaming: the hash of what decides its rows."""
    train_names: tuple[str, ...] = ()
    """Streaming: the ids of the rows that were trained on."""
    streamed_ledger: Callable[[int], PreparedRows] | None = None
    """Streaming: the same with ids and ledger of the rows before a position."""

    @property
    def digest(self) -> str:
        """SHA-256 over the ids and label spans of all rows, in order."""
        if self.file_names:
            return self.file_names
        digest = hashlib.sha256()
        for row in (*self.train_ids, *self.held_out_ids):
            for sequence in token_sequences(row):
                digest.update(sequence.ids.tobytes())
                digest.update(repr(sequence.label_spans).encode())
        return digest.hexdigest()

    def close(self) -> None:
        """End a stream's thread."""
        if isinstance(self.train_ids, RowStream):
            self.train_ids.close()


def make_encoder(config: RunConfig) -> Encoder:
    """The encoder with the model's tokenizer and template, as train, predict and chat use it."""
    from sartor.model.load import load_tokenizer

    tokenizer = load_tokenizer(
        config.model.model_name_or_path,
        revision=config.model.model_revision,
        trust_remote_code=config.permissions.trust_remote_code,
    )
    prompt = config.prompt
    template = Template.from_tokenizer(
        tokenizer, prompt.template, default_system=prompt.default_system, enable_thinking=prompt.enable_thinking
    )
    return Encoder(tokenizer, template, prompt)


def split_seed(config: RunConfig) -> int:
    """The seed of held-out rows and samples; its own, so that runs with other seeds keep the split."""
    return config.train.seed if config.data.split_seed is None else config.data.split_seed


def load_named(config: RunConfig, names: tuple[str, ...]) -> Loaded:
    """Load datasets by name with the data settings. Raises: ConfigError without a name; DataError."""
    data = config.data
    if not names:
        raise ConfigError("No dataset given.", data.dataset_dir, "Set dataset=NAME, a name in dataset_info.json.")
    return load_many(names, data, stage=config.method.stage, seed=split_seed(config), permissions=config.permissions)


@gc_paused()
def prepare_rows(config: RunConfig, encoder: Encoder, progress: Progress | None = None) -> PreparedRows:
    """Load, split and encode the training and held-out rows of a run.

    Raises: DataError when more than `max_skipped` of the rows are skipped, or no training row is left.
    """
    sources = [load_named(config, config.data.dataset)]
    parts = _parts(config, sources[0])
    held_out = list(parts.held_out)
    if config.data.eval_dataset:
        sources.append(load_named(config, config.data.eval_dataset))
        held_out += sources[1].examples
    twice = {example.origin.id for example in parts.train} & {example.origin.id for example in held_out}
    train_rows, from_cache = _encode_train(config, encoder, parts.train, sources[0], progress)
    held_out_rows = encoder.encode_all(held_out)
    encoding_notes = (*train_rows.notes, *(note for note in held_out_rows.notes if note.code == "overlong-part"))
    skipped_ids = {skipped.origin.id: skipped for skipped in (*train_rows.skipped, *held_out_rows.skipped)}
    train = [example for example in parts.train if example.origin.id not in skipped_ids]
    held_out = [example for example in held_out if example.origin.id not in skipped_ids]
    loaded = sum((source.ledger for source in sources), Ledger())
    trained = {example.origin.id for example in train}
    both = {example.origin.id for example in held_out} & trained
    ledger = replace(
        loaded,
        read=loaded.read - len(twice),
        training=len(trained),
        held_out=len({example.origin.id for example in held_out} - trained),
        skipped=(*loaded.skipped, *skipped_ids.values()),
        notes=(*loaded.notes, *encoding_notes, *((Note("eval-trained", {"rows": len(both)}),) if both else ())),
    )
    check_skipped_limit(ledger, config.data.max_skipped)
    if not train_rows.encoded:
        raise DataError("No training rows are left.", ", ".join(config.data.dataset), first_reason(ledger))
    files = tuple(file for source in sources for file in source.files)
    return PreparedRows(train, held_out, train_rows.encoded, held_out_rows.encoded, ledger, files, from_cache)


def _parts(config: RunConfig, loaded: Loaded) -> Split:
    """Split; the held-out rows of a stream are always its first ones."""
    if config.data.streaming:
        count = round(config.data.val_size)
        return Split(loaded.examples[count:], loaded.examples[:count])
    return split_loaded(loaded, config.data.val_size, split_seed(config))


def _encode_train(
    config: RunConfig, encoder: Encoder, examples: Sequence[Example], loaded: Loaded, progress: Progress | None
) -> tuple[EncodedRows, bool]:
    """Encode, or read from the token cache, which is keyed by files, registry, settings and code."""
    from sartor.model.locate import cache_folder

    if not loaded.files:  # rows from a hub have no local file to key the cache by
        return encoder.encode_all(examples, progress), False
    registry = Path(config.data.dataset_dir) / "dataset_info.json"
    inputs = {
        "files": [file.sha256 for file in loaded.files],
        "registry": sha256_file(registry) if registry.exists() else None,
        "data": config.data.model_dump(),
        "stage": config.method.stage,
        "seed": split_seed(config),
    }
    return encode_cached(encoder, examples, cache_folder() / "tokens", inputs, progress)


def check_skipped_limit(ledger: Ledger, max_skipped: float) -> None:
    """Raises: DataError when the skipped rows are more than `max_skipped` (a fraction below 1, or a count)."""
    allowed = max_skipped if max_skipped >= 1 else max_skipped * ledger.read
    if len(ledger.skipped) <= allowed:
        return
    limit = tr("{count:g} rows", count=max_skipped) if max_skipped >= 1 else f"{max_skipped:.0%}"
    raise DataError(
        "{skipped:,} of {read:,} rows ({frac:.1%}) cannot be used; at most {limit} may be skipped.",
        first_reason(ledger),
        "Fix the rows (`sartor check NAME` lists them all), or raise max_skipped.",
        skipped=len(ledger.skipped),
        read=ledger.read,
        frac=ledger.skipped_frac,
        limit=limit,
    )


def first_reason(ledger: Ledger) -> str:
    """Where the first skipped row is, and why it was skipped."""
    return f"{ledger.skipped[0].origin}: {ledger.skipped[0].reason}" if ledger.skipped else ""


def data_json(rows: PreparedRows, config: RunConfig, encoder: Encoder, run: RunDir) -> dict[str, Any]:
    """The content of data.json: files with hashes, the ids of the split, the ledger, the template.

    `started_in` is the folder that relative paths start from, seen from the run's folder; None on another drive.
    """
    source, folder = encoder.template.source, Path(config.data.dataset_dir)
    trained = set(rows.train_names) or {example.origin.id for example in rows.train}
    return {
        "started_in": _seen_from(run.path.resolve()),
        "datasets": [
            {"path": str(f.path), "sha256": f.sha256, "encoding": f.encoding, "rows": f.rows} for f in rows.files
        ],
        "split": {
            "val_size": config.data.val_size,
            "seed": split_seed(config),
            "saved": {name: there.by for name in config.data.dataset if (there := read_split(folder, name))},
            "train": list(rows.train_names) or [example.origin.id for example in rows.train],
            "held_out": [i for example in rows.held_out if (i := example.origin.id) not in trained],
        },
        "ledger": ledger_json(rows.ledger),
        "template": {"name": encoder.template.name, "sha256": hashlib.sha256(source.encode()).hexdigest()},
    }


def _seen_from(folder: Path) -> str | None:
    try:
        return Path(os.path.relpath(Path.cwd(), folder)).as_posix()
    except ValueError:
        return None


def ledger_json(ledger: Ledger) -> dict[str, Any]:
    """A ledger as JSON, its reasons in the current language."""
    skipped = [
        {
            "id": s.origin.id,
            "file": s.origin.file,
            "row": s.origin.row,
            "line": s.origin.line,
            "imported_from": s.origin.imported_from and asdict(s.origin.imported_from),
            "code": s.code,
            "field": s.field,
            "reason": str(s.reason),
            "fix": str(s.fix),
            "params": {name: str(value) for name, value in s.params.items()},
        }
        for s in ledger.skipped
    ]
    counts: Mapping[str, int] = {
        name: getattr(ledger, name) for name in ("read", "training", "held_out", "left_out", "repeats")
    }
    return {**counts, "skipped": skipped, "notes": [str(note) for note in ledger.notes]}
