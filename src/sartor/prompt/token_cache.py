"""A cache of encoded rows in memory-mapped files, keyed by a hash of everything that decides the tokens."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
import tempfile
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np

from sartor.base.files import atomic_write, fsync_file, fsync_folder, sha256_file
from sartor.base.process import gc_paused
from sartor.base.types import Encoded, Example, Note, Origin, Pair, Skipped, TokenSequence, UnpairedSequence
from sartor.prompt.encode import EncodedRows, Encoder

MIN_ROWS = 2000
"""Encoding fewer rows than this is faster than looking them up."""
MAX_CACHES = 20
"""Caches kept in a folder; the least recently used is removed first."""
_ARRAYS = {
    "offsets": np.int64,
    "spans": np.int32,
    "span_offsets": np.int64,
    "kinds": np.uint8,
    "places": np.int64,
    "parts": np.int32,
}
_CODES: dict[Any, str] = {np.int64: "q", np.int32: "i", np.uint8: "B"}
_KINDS = {"sequence": 0, "pair": 1, "bad": 2, "good": 3}

Progress = Callable[[int, int | None], None]


class CachedRows(Sequence[Encoded]):
    """Encoded rows in memory-mapped files, made into objects on access; origins come from the examples."""

    def __init__(self, folder: Path, examples: Sequence[Example]) -> None:
        arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in _ARRAYS}
        self.offsets, self.span_offsets = arrays["offsets"], arrays["span_offsets"]
        self.spans = arrays["spans"].reshape(-1, 2)
        self.ids = np.memmap(folder / "ids.bin", _id_dtype(folder), "r", shape=(int(self.offsets[-1]),))
        self.kinds, self.places, self.parts = arrays["kinds"], arrays["places"], arrays["parts"]
        self.examples = examples
        # The first sequence of each row; a pair has two.
        self.first = np.concatenate([[0], np.cumsum(np.where(self.kinds == _KINDS["pair"], 2, 1))])

    def __len__(self) -> int:
        return len(self.kinds)

    @overload
    def __getitem__(self, row: int) -> Encoded: ...
    @overload
    def __getitem__(self, row: slice) -> list[Encoded]: ...
    def __getitem__(self, row: int | slice) -> Encoded | list[Encoded]:
        if isinstance(row, slice):
            return [self[place] for place in range(*row.indices(len(self)))]
        row = range(len(self))[row]
        origin, first = self.examples[int(self.places[row])].origin, int(self.first[row])
        kind = int(self.kinds[row])
        if kind == _KINDS["pair"]:
            return Pair(self._sequence(first, origin), self._sequence(first + 1, origin), origin)
        sequence = self._sequence(first, origin, int(self.parts[row]))
        return sequence if kind == _KINDS["sequence"] else UnpairedSequence(sequence, kind == _KINDS["good"], origin)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and all(a == b for a, b in zip(self, other))

    __hash__ = None  # type: ignore[assignment]

    def _sequence(self, number: int, origin: Origin | None, part: int = 0) -> TokenSequence:
        ids = np.asarray(self.ids[self.offsets[number] : self.offsets[number + 1]], np.int32)
        spans = self.spans[self.span_offsets[number] : self.span_offsets[number + 1]]
        return TokenSequence(ids, tuple((int(start), int(stop)) for start, stop in spans), origin, part)


def encode_cached(
    encoder: Encoder,
    examples: Sequence[Example],
    folder: Path,
    inputs: Mapping[str, Any],
    progress: Progress | None = None,
    *,
    min_rows: int = MIN_ROWS,
) -> tuple[EncodedRows, bool]:
    """The result of `encoder.encode_all`, and whether it was read from the cache in `folder`.

    `inputs` is what decided the examples (hashes of files, the dataset_info.json entry, …); template, tokenizer,
    settings, Sartor's own code and the ids of the examples in order are added to the key. A damaged cache is written
    again. If the disk is full, rows are encoded without a cache.
    """
    if len(examples) < min_rows:
        return encoder.encode_all(examples, progress), False
    target = folder / cache_key(encoder, examples, inputs)
    if _is_complete(target):
        os.utime(target)
        if progress:
            progress(len(examples), len(examples))
        return _read(target, examples), True
    shutil.rmtree(target, ignore_errors=True)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tmp = Path(tempfile.mkdtemp(prefix=".part-", dir=folder))
    except OSError:  # a folder that cannot be written to: continue without a cache
        return encoder.encode_all(examples, progress), False
    try:
        _write(tmp, encoder, examples, progress)
        os.replace(tmp, target)
        fsync_folder(folder)
    except OSError:  # another process was faster, or the disk is full: continue without a cache
        shutil.rmtree(tmp, ignore_errors=True)
        return encoder.encode_all(examples, progress), False
    _prune(folder)
    return _read(target, examples), False


def cache_key(encoder: Encoder, examples: Sequence[Example], inputs: Mapping[str, Any]) -> str:
    """32 hex digits of a SHA-256 over everything that decides the tokens."""
    template = encoder.template
    digest = hashlib.sha256()
    decided = {
        "inputs": inputs,
        "template": [template.name, template.source, template.drops_reasoning],
        "settings": encoder.settings.model_dump(),
        "code": _code_version(),
    }
    digest.update(json.dumps(decided, sort_keys=True, default=str).encode())
    digest.update(encoder.codec.backend.to_str().encode())
    digest.update(str(encoder.tokenizer.eos_token_id).encode())
    for example in examples:
        digest.update(example.origin.id.encode("utf-8", "surrogatepass") + b"\0")
    return digest.hexdigest()[:32]


@functools.cache
def _code_version() -> str:
    """SHA-256 of all source code between a data file and its tokens."""
    digest = hashlib.sha256()
    root = Path(__file__).parents[1]
    for part in ("base", "data", "prompt"):
        for file in sorted((root / part).rglob("*.py")) + sorted((root / part).rglob("*.jinja")):
            digest.update(file.read_bytes())
    return digest.hexdigest()


@gc_paused()
def _write(folder: Path, encoder: Encoder, examples: Sequence[Example], progress: Progress | None) -> None:
    """Write all files, then the manifest with their hashes."""
    made = {name: array(_CODES[kind]) for name, kind in _ARRAYS.items()}
    made["offsets"].append(0)
    made["span_offsets"].append(0)
    width = np.uint16 if encoder.codec.backend.get_vocab_size(with_added_tokens=True) <= 1 << 16 else np.uint32
    skipped: list[tuple[int, str, str | None, dict[str, object]]] = []
    with (folder / "ids.bin").open("wb") as file:
        for place, outcome in _with_places(encoder, examples, progress):
            if isinstance(outcome, Skipped):
                skipped.append((place, outcome.code, outcome.field, dict(outcome.params)))
                continue
            made["kinds"].append(_kind(outcome))
            made["places"].append(place)
            made["parts"].append(outcome.part if isinstance(outcome, TokenSequence) else 0)
            for sequence in _sequences(outcome):
                file.write(sequence.ids.astype(width).tobytes())
                made["offsets"].append(made["offsets"][-1] + len(sequence))
                made["spans"].extend(end for span in sequence.label_spans for end in span)
                made["span_offsets"].append(len(made["spans"]) // 2)
    if made["offsets"][-1] == 0:
        raise OSError("no tokens to cache")
    notes = [(note.code, dict(note.params), note.count) for note in encoder.take_notes()]
    rest = {"width": width().nbytes, "skipped": skipped, "notes": notes}
    atomic_write(folder / "rest.json", json.dumps(rest, ensure_ascii=False))
    for name, kind in _ARRAYS.items():
        np.save(folder / f"{name}.npy", np.asarray(made[name], kind), allow_pickle=False)
    for path in folder.iterdir():
        fsync_file(path)
    hashes = {path.name: sha256_file(path) for path in sorted(folder.iterdir())}
    atomic_write(folder / "manifest.json", json.dumps(hashes, indent=1))


def _id_dtype(folder: Path) -> type[np.uint16] | type[np.uint32]:
    narrow = json.loads((folder / "rest.json").read_text(encoding="utf-8"))["width"] == 2
    return np.uint16 if narrow else np.uint32


def _with_places(
    encoder: Encoder, examples: Sequence[Example], progress: Progress | None
) -> Iterator[tuple[int, Encoded | Skipped]]:
    """Each outcome with the index of its example; a document or a conversation may have several outcomes."""
    place, total = 0, len(examples)
    for outcome in encoder.stream(examples):
        while examples[place].origin is not outcome.origin:
            place += 1
            if progress and place % 1000 == 0:
                progress(place, total)
        yield place, outcome
    if progress:
        progress(total, total)


def _read(folder: Path, examples: Sequence[Example]) -> EncodedRows:
    rest = json.loads((folder / "rest.json").read_text(encoding="utf-8"))
    skipped = [Skipped(examples[place].origin, code, field, params) for place, code, field, params in rest["skipped"]]
    notes = tuple(Note(code, params, count) for code, params, count in rest["notes"])
    return EncodedRows(CachedRows(folder, examples), skipped, notes)


def _is_complete(folder: Path) -> bool:
    """Whether all files exist with the content that was written."""
    try:
        hashes: dict[str, str] = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        names = {"rest.json", "ids.bin", *(f"{name}.npy" for name in _ARRAYS)}
        return set(hashes) == names and all(sha256_file(folder / name) == hashes[name] for name in names)
    except (OSError, ValueError, AttributeError):
        return False


def _prune(folder: Path) -> None:
    caches = sorted((path for path in folder.iterdir() if path.is_dir()), key=lambda path: -path.stat().st_mtime)
    for old in caches[MAX_CACHES:]:
        shutil.rmtree(old, ignore_errors=True)


def _kind(row: Encoded) -> int:
    if isinstance(row, UnpairedSequence):
        return _KINDS["good" if row.good else "bad"]
    return _KINDS["pair" if isinstance(row, Pair) else "sequence"]


def _sequences(row: Encoded) -> Iterable[TokenSequence]:
    if isinstance(row, Pair):
        return row.chosen, row.rejected
    return (row.sequence,) if isinstance(row, UnpairedSequence) else (row,)
