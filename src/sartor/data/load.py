"""Load registered datasets: examples in the order of the files, and a ledger of where every row went."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from sartor.base.errors import DataError
from sartor.base.permissions import NOTHING_ALLOWED, Permissions
from sartor.base.process import gc_paused
from sartor.base.settings import DataSettings
from sartor.base.types import Example, Ledger, Skipped
from sartor.data import mixing
from sartor.data.access import dataset_place
from sartor.data.dataset_files import open_parts
from sartor.data.dataset_info import read_registry
from sartor.data.dataset_spec import DatasetSpec
from sartor.data.import_record import ImportSummary, read_summary
from sartor.data.read_rows import check_columns, parse_row
from sartor.data.validate import Notes


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file that rows were read from."""

    path: Path
    """The file, or the address of a hub, a script or a cloud file."""
    sha256: str
    encoding: str | None
    rows: int | None
    """None where not all of them were read."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """Examples in the order of the files, and where every row went."""

    examples: list[Example]
    ledger: Ledger
    spec: DatasetSpec
    files: tuple[SourceFile, ...] = ()
    imported: ImportSummary | None = None
    """What was read, kept and refused when the dataset was imported."""

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        return self.ledger.skipped


def load(
    name: str,
    dataset_dir: Path,
    *,
    stage: str = "sft",
    max_samples: int | None = None,
    seed: int = 42,
    encoding: str | None = None,
    permissions: Permissions | None = None,
) -> Loaded:
    """A registered dataset. `max_samples` draws a seeded sample; the other rows count as left out.

    Raises: DataError for an unknown name, a bad entry, a missing or damaged file, a missing column.
    """
    spec = read_registry(dataset_dir).spec(name)
    return load_spec(spec, stage=stage, max_samples=max_samples, seed=seed, encoding=encoding, permissions=permissions)


def load_many(
    names: Iterable[str],
    data: DataSettings,
    *,
    stage: str = "sft",
    seed: int = 42,
    permissions: Permissions | None = None,
) -> Loaded:
    """Several datasets of `data.dataset_dir`, one after the other or interleaved; repeated rows count as repeats.

    Raises: DataError as `load` does; ConfigError for probabilities that do not fit.
    """
    registry = read_registry(Path(data.dataset_dir))
    parts = [
        load_spec(
            registry.spec(name),
            stage=stage,
            max_samples=data.max_samples,
            seed=seed,
            encoding=data.encoding,
            permissions=permissions,
        )
        for name in names
    ]
    if len(parts) == 1:
        return parts[0]
    mixed = [example for part in parts for example in part.examples]
    ledger = sum((part.ledger for part in parts), Ledger())
    if data.mix_strategy != "concat":
        drawn = mixing.interleave([part.examples for part in parts], data.mix_strategy, data.interleave_probs, seed)
        mixed = [example for _, example in drawn]
        used = len({(part, example.origin.id) for part, example in drawn})
        unused = ledger.training - used
        ledger = replace(ledger, training=used, left_out=ledger.left_out + unused, repeats=len(mixed) - used)
    return Loaded(mixed, ledger, parts[0].spec, tuple(file for part in parts for file in part.files))


@gc_paused()
def load_spec(
    spec: DatasetSpec,
    *,
    stage: str = "sft",
    max_samples: int | None = None,
    seed: int = 42,
    encoding: str | None = None,
    permissions: Permissions | None = None,
) -> Loaded:
    """As `load`, for an entry that is parsed already."""
    notes = Notes()
    parsed: list[Example | Skipped] = []
    files: list[SourceFile] = []
    seen_columns: set[str] = set()
    reading, local = spec, True
    for part in open_parts(spec, permissions or NOTHING_ALLOWED, encoding):
        before, digest = len(parsed), hashlib.sha256()
        reading, local = part.spec, local and part.file is not None
        for raw in part.rows:
            if isinstance(raw.value, dict):
                seen_columns |= raw.value.keys()
            if part.file is None:
                digest.update(json.dumps(raw.value, ensure_ascii=False, default=str).encode("utf-8", "replace"))
            parsed.append(parse_row(raw, reading, part.origin(raw), stage, notes))
        sha256 = part.file.digest() if part.file else digest.hexdigest()
        files.append(SourceFile(part.shown, sha256, part.encoding, len(parsed) - before))
    check_columns(reading, seen_columns, stage, notes)
    if not parsed:
        raise DataError("The dataset has no rows.", files[0].path if files else spec.name, "Check the file.")
    chosen = parsed
    if local:  # hubs and scripts apply the slice themselves
        chosen = [parsed[n] for n in mixing.parse_slice(spec.split, len(parsed), dataset_place(spec))]
    examples = [outcome for outcome in chosen if not isinstance(outcome, Skipped)]
    skipped = tuple(outcome for outcome in chosen if isinstance(outcome, Skipped))
    kept = mixing.sample(examples, min(spec.num_samples or len(examples), max_samples or sys.maxsize), seed)
    training = min(len(kept), len(examples))
    imported = read_summary(spec.folder_path, spec.name)
    refused = (imported.note(spec.name, spec.folder_path),) if imported and imported.refused else ()
    ledger = Ledger(
        read=len(parsed),
        training=training,
        left_out=len(parsed) - training - len(skipped),
        repeats=len(kept) - training,
        skipped=skipped,
        notes=(*notes.all(), *refused),
    )
    return Loaded(kept, ledger, spec, tuple(files), imported)
