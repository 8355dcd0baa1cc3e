"""What an entry names: its local files, permitted and verified, or rows from a hub, a script or the network."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from sartor.base.errors import DataError, close_matches
from sartor.base.i18n import Text, tr
from sartor.base.open_file import OpenFile, open_regular
from sartor.base.permissions import Permissions
from sartor.base.types import Origin, RawRow
from sartor.data import remote
from sartor.data.access import dataset_place, folder_of, require_inside
from sartor.data.dataset_spec import DatasetSpec
from sartor.data.decompress import COMPRESSED_SUFFIXES
from sartor.data.files import open_data_file
from sartor.data.import_record import ImportedPlaces, imported_places, record_path
from sartor.data.sources import Source, suffixes

MAX_LISTED = 8
"""Files named in an error."""


@dataclass(frozen=True, slots=True)
class DatasetPart:
    """Rows to read and where they come from: one file, or all of a hub or script."""

    shown: Path
    """The file, or the address, for people and records."""
    label: str
    """The file's name in `Origin.file`."""
    rows: Iterator[RawRow]
    spec: DatasetSpec
    """The dataset's spec, adapted to this kind of file."""
    file: OpenFile | None = None
    """The open file on this machine; None for a hub or a script."""
    encoding: str | None = None
    imported: ImportedPlaces | None = None
    """Where the rows are in the file that an import made this one from."""

    def origin(self, raw: RawRow) -> Origin:
        """Where one of the rows comes from."""
        section = raw.value.get("section") if isinstance(raw.value, dict) else None
        section = section if isinstance(section, str) else None
        place = self.imported.of(raw.row) if self.imported else None
        return Origin(self.spec.name, self.label, raw.row, raw.line, section=section, imported_from=place)


def open_parts(spec: DatasetSpec, permissions: Permissions, encoding: str | None) -> Iterator[DatasetPart]:
    """What an entry names, one part at a time; each stays open until the next is requested.

    `encoding` overrides the entry's. Raises: DataError for missing, forbidden, damaged or unverified files.
    """
    place = remote.place_of(spec)
    kind = place.partition(":")[0] if place else "file"
    if place and kind in ("hf", "ms"):
        yield DatasetPart(Path(place), Path(place).name, remote.hub_rows(spec), spec)
    elif place and kind == "script":
        yield DatasetPart(Path(place), Path(place).name, remote.script_rows(spec, permissions), spec)
    elif place:
        with remote.cloud_file(spec, permissions) as path, open_regular(path) as file:
            yield from _open_part(spec, file, path.name, encoding, Path(place))
    else:
        for path in local_files(spec, permissions):
            with open_regular(path, folder_of(spec, permissions)) as file:
                yield from _open_part(spec, file, _label(spec, path), encoding, path)


def _open_part(
    spec: DatasetSpec, file: OpenFile, label: str, encoding: str | None, shown: Path
) -> Iterator[DatasetPart]:
    _verify_hashes(spec, file)
    imported = _imported(spec, file, label)
    with open_data_file(file.path, encoding or spec.encoding, opened=file) as data:
        reading = _with_text_column(spec, data.source)
        yield DatasetPart(shown, label, data.rows(), reading, file, data.encoding, imported)


def _imported(spec: DatasetSpec, file: OpenFile, label: str) -> ImportedPlaces | None:
    """Where the rows were imported from, if this is the file that the import wrote, unchanged."""
    if label != f"{spec.name}.json" or not record_path(spec.folder_path, spec.name).exists():
        return None
    return imported_places(spec.folder_path, spec.name, file.digest())


def _with_text_column(spec: DatasetSpec, source: Source) -> DatasetSpec:
    """The only column of a plain text file is the prompt, unless the entry maps `prompt` itself."""
    if source.text_column is None or "prompt" in spec.columns_given:
        return spec
    return replace(spec, columns={**spec.columns, "prompt": source.text_column})


def _files_there(name: str, folder: Path) -> Text:
    """The fix for a missing file: the nearest name, and the data files that there are."""
    own = (".split.json", ".import.jsonl")
    names = sorted(p.name for p in folder.iterdir() if p.is_file()) if folder.is_dir() else []
    known = (*suffixes(), *COMPRESSED_SUFFIXES)
    names = [n for n in names if n.lower().endswith(known) and n != "dataset_info.json" and not n.endswith(own)]
    listed = ", ".join(names[:MAX_LISTED]) + (" …" if len(names) > MAX_LISTED else "")
    if near := close_matches(name, names, 1):
        return tr("Did you mean {name}? Set it as file_name. Data files there: {files}.", name=near[0], files=listed)
    if names:
        return tr("Set one of the data files there as file_name: {files}.", files=listed)
    return tr("There is no data file in the folder. Put it there, or correct file_name.")


def local_files(spec: DatasetSpec, permissions: Permissions) -> list[Path]:
    """The files of an entry, inside the dataset folder. Raises: DataError naming the nearest file for a missing one."""
    where = dataset_place(spec)
    if not spec.file_name:
        raise DataError("The entry has no file_name.", where, "Add a file_name.")
    name, folder = spec.file_name, spec.folder_path
    if "\0" in name:
        raise DataError("file_name contains a NUL character.", where, "Write a plain file name.")
    path = folder / name
    _require_reachable(path)
    require_inside(path, folder, permissions)
    if path.is_dir():
        found = sorted(p for p in path.iterdir() if p.is_file() and not p.name.startswith("."))
        for inner in found:
            require_inside(inner, folder, permissions)
        if not found:
            raise DataError("The folder is empty.", path, "Put data files into it.")
        return found
    if path.exists() and not path.is_file():
        raise DataError("Not a regular file.", path, "Copy its contents into a file.")
    if not path.is_file():
        raise DataError("File not found: {name!r}.", path, _files_there(name, folder), name=name)
    return [path]


def _require_reachable(path: Path) -> None:
    """Raises: DataError for circular links, a name that is too long, or a folder without access."""
    try:
        path.resolve().stat()
    except (FileNotFoundError, NotADirectoryError):
        return  # reported later, with the nearest name
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or tr("circular symbolic links")
        raise DataError(
            "Could not access the file: {reason}.", str(path)[:300], "Check file_name.", reason=reason
        ) from None


def _label(spec: DatasetSpec, path: Path) -> str:
    try:
        return path.resolve().relative_to(spec.folder_path.resolve()).as_posix()
    except ValueError:
        return path.name


def _verify_hashes(spec: DatasetSpec, file: OpenFile) -> None:
    for kind, expected in (("sha1", spec.file_sha1), ("sha256", spec.file_sha256)):
        if not expected:
            continue
        found = file.digest(kind)
        if found != expected.strip().lower():
            raise DataError(
                "{kind} mismatch: the file has {found}, the entry expects {expected}.",
                file.path,
                "Get the right file, or remove {key} from the entry.",
                kind=kind.upper(),
                found=found,
                expected=expected,
                key=f"file_{kind}",
            )
