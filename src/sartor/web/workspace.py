"""The folder that the page was opened on: its parts, what can be chosen in it, and which names are allowed."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from sartor.base.errors import DataError
from sartor.base.rundir import RunDir
from sartor.data.dataset_info import REGISTRY
from sartor.data.sources import suffixes

MAX_FILES = 500
OWN_FILES = (".split.json", ".import.jsonl")
"""What Sartor keeps beside a dataset; nothing to import."""


@dataclass(frozen=True, slots=True)
class Workspace:
    """A folder with data/, runs/ and uploads/ in it, and folders of models beside it."""

    folder: Path
    model_dirs: tuple[Path, ...] = ()
    max_upload_bytes: int = 4 * 2**30

    @property
    def data(self) -> Path:
        """The folder of dataset_info.json: the folder itself if the file is there, else data/."""
        return self.folder if (self.folder / REGISTRY).is_file() else self.folder / "data"

    @property
    def runs(self) -> Path:
        return self.folder / "runs"

    @property
    def uploads(self) -> Path:
        return self.folder / "uploads"

    @property
    def jobs(self) -> Path:
        return self.folder / ".sartor" / "jobs"

    def resolve_inside(self, name: str, root: Path | None = None) -> Path:
        """A path from the browser, resolved. Raises: DataError if it is outside the folder, also through links."""
        root = (root or self.folder).resolve()
        path = (root / name).resolve()
        if path != root and not path.is_relative_to(root):
            raise DataError(
                "The path is outside the folder of this page.", name, "Choose something in {folder}/.", folder=root.name
            )
        return path

    def run(self, name: str) -> RunDir:
        """A run by its name in runs/. Raises: DataError if there is none."""
        run = RunDir(self.resolve_inside(name, self.runs))
        if not run.exists():
            raise DataError("Run not found.", name, "It may have been moved to the trash.")
        return run

    def tables(self) -> list[str]:
        """Files that can be imported, relative to the folder, without hidden ones and runs."""
        found: list[str] = []
        suffixes = readable()
        for path in sorted(self.folder.rglob("*")):
            parts = path.relative_to(self.folder).parts
            if any(part.startswith(".") for part in parts) or parts[0] == "runs" or len(parts) > 4:
                continue
            own = path.name == REGISTRY or path.name.endswith(OWN_FILES)
            if path.suffix.lower() in suffixes and not own and path.is_file():
                found.append(path.relative_to(self.folder).as_posix())
            if len(found) >= MAX_FILES:
                break
        return found

    def models(self) -> list[str]:
        """Names and folders of the models that can be chosen."""
        found = ["smollm2-135m"]
        for root in (*self.model_dirs, self.folder / "models"):
            folders = [root, *sorted(root.iterdir())] if root.is_dir() else []
            found += [str(folder) for folder in folders if (folder / "config.json").is_file()]
        return found


def readable() -> tuple[str, ...]:
    """The suffixes of the files that can be imported."""
    return suffixes()


def clean_name(name: str) -> str:
    """A file name from a browser, sanitized: no folders, no control or direction marks, not hidden, not long.

    Raises: DataError if nothing is left of it.
    """
    name = unicodedata.normalize("NFC", re.split(r"[/\\]", name)[-1])
    kept = "".join(c for c in name if unicodedata.category(c)[0] != "C" and c not in '<>:"|?*')
    stem, dot, suffix = kept.strip(" .").rpartition(".")
    stem, suffix = (stem, suffix) if dot else (suffix, "")
    stem = stem.strip(" .")
    while len(stem.encode()) > 180:
        stem = stem[:-1]
    if re.fullmatch(r"(?i)con|prn|aux|nul|com\d|lpt\d", stem):
        stem = f"{stem}_"
    if not stem:
        raise DataError("The file name cannot be used.", name[:80], "Rename the file.")
    return f"{stem}.{suffix[:20]}" if suffix else stem


def dataset_name(file: str) -> str:
    """A dataset name made from a file name."""
    return re.sub(r"[^\w.+-]+", "_", Path(file).stem).strip("._-") or "data"


CONTROL_PICTURES = {code: chr(0x2400 + code) for code in range(32) if code not in (9, 10)} | {127: "\u2421"}
MARKS = {
    code: f"⟨U+{code:04X}⟩"
    for code in (0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x061C, *range(0x80, 0xA0))
}
SHOWN_AS = str.maketrans({**CONTROL_PICTURES, **MARKS})


def visible(text: object) -> str:
    """Text from data, models and logs for display: control characters and direction marks are made visible."""
    return str(text).replace("\r\n", "\n").translate(SHOWN_AS)
