"""What a registry entry may open: files of its folder, names on a hub, scripts, addresses; every source asks here."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from sartor.base.errors import DataError
from sartor.base.i18n import Text, tr
from sartor.base.permissions import Permissions
from sartor.data.dataset_spec import DatasetSpec

HUB_NAME = re.compile(r"[A-Za-z0-9_][\w.-]*/[A-Za-z0-9_][\w.-]*", re.ASCII)
"""OWNER/NAME. A single word may be one of the builders of `datasets` (text, json, csv), which read any local file."""
SUBSET = re.compile(r"[^/\\:*?\"<>|\x00-\x1f]{1,200}")
CLOUDS = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oss", "hf", "r2")
"""fsspec's cloud stores; its other file systems read this machine (`file`, `local`, `zip::…`) or private networks."""


def dataset_place(spec: DatasetSpec) -> Text:
    """The dataset's name as a place for errors."""
    return tr("dataset {name!r}", name=spec.name)


def hub_name(name: str, spec: DatasetSpec) -> str:
    """The name of a dataset on a hub, with subset and folder checked as well.

    Raises: DataError for a path, an address, or the name of a builder, which would read files of this machine.
    """
    where = dataset_place(spec)
    if not HUB_NAME.fullmatch(name) or ".." in name or Path(name).exists():
        raise DataError(
            "{name!r} is not the name of a dataset on a hub.",
            where,
            "Write OWNER/NAME; use file_name for a file or folder on this machine.",
            name=name,
        )
    if spec.subset is not None and (not SUBSET.fullmatch(spec.subset) or ".." in spec.subset):
        raise DataError("Invalid subset {name!r}.", where, "Write the name that the hub shows.", name=spec.subset)
    if spec.folder is not None and not _stays_inside(spec.folder):
        raise DataError(
            "folder {name!r} is not a folder of the dataset.",
            where,
            "Write a relative path without .. in it.",
            name=spec.folder,
        )
    return name


def _stays_inside(folder: str) -> bool:
    plain = not re.search(r"[\\:*?\[\]\x00-\x1f]", folder) and not folder.startswith("~")
    return plain and not PurePosixPath(folder).is_absolute() and ".." not in PurePosixPath(folder).parts


def require_inside(path: Path, folder: Path, permissions: Permissions) -> None:
    """Raises: DataError for a file that is, after following links, outside the dataset folder."""
    if not permissions.allow_outside and not path.resolve().is_relative_to(folder.resolve()):
        raise DataError(
            "The file is outside the dataset folder.", path, "Move it into the folder, or add --allow-outside."
        )


def folder_of(spec: DatasetSpec, permissions: Permissions) -> Path | None:
    """The folder that the files of an entry must be in when they are opened; None where any may be."""
    return None if permissions.allow_outside else spec.folder_path


def script_file(spec: DatasetSpec, permissions: Permissions) -> Path:
    """`<folder>/<folder>.py` of a script entry. Raises: DataError for one outside the dataset folder."""
    if "\0" in str(spec.script_url):
        raise DataError("script_url contains a NUL character.", dataset_place(spec), "Write a plain folder name.")
    folder = spec.folder_path / str(spec.script_url)
    file = folder / f"{folder.name}.py"
    if not permissions.allow_outside and not file.resolve().is_relative_to(spec.folder_path.resolve()):
        raise DataError("The script is outside the dataset folder.", file, "Move it, or add --allow-outside.")
    return file


def cloud_address(spec: DatasetSpec, permissions: Permissions) -> str:
    """The address of a cloud file. Raises: DataError without permission, or for anything but a known store."""
    url = str(spec.cloud_file_name)
    if not permissions.allow_network:
        raise DataError("The file is on the network.", url, "Add --allow-network, or download it and use file_name.")
    scheme = url.partition("://")[0].lower()
    if scheme not in ("http", "https", *CLOUDS):
        known = ", ".join(f"{name}://" for name in ("https", *CLOUDS))
        raise DataError(
            "cloud_file_name is not the address of a supported store.",
            url,
            "Supported: {known}; use file_name for local files.",
            known=known,
        )
    return url


def cloud_file_name(url: str) -> str:
    """The last part of an address: the name of the downloaded file."""
    return PurePosixPath(urlsplit(url).path).name or "data"
