"""Rows that lie in no dataset folder: hubs, scripts, the cloud; scripts and the cloud need permission."""

from __future__ import annotations

import hashlib
import importlib.util
import ipaddress
import os
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

from sartor.base.errors import DataError
from sartor.base.types import RawRow
from sartor.data.dataset_info import DatasetSpec
from sartor.data.sources.arrow import plain

CLOUDS = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oss", "hf", "r2")
"""fsspec's file systems of cloud stores; its others read this machine (`file`, `local`, `zip::…`) or a private net."""
CHUNK = 1 << 20
TIMEOUT_S = 60.0


def place_of(spec: DatasetSpec) -> str | None:
    """`hf:…`, `ms:…`, `script:…` or `cloud:…`: where an entry's rows come from; None for a file of the folder."""
    modelscope = os.environ.get("USE_MODELSCOPE_HUB", "").lower() in ("1", "true")
    if spec.ms_hub_url and (modelscope or not spec.hf_hub_url):
        return f"ms:{spec.ms_hub_url}"
    if spec.hf_hub_url:
        return f"hf:{spec.hf_hub_url}"
    if spec.script_url:
        return f"script:{spec.script_url}"
    return f"cloud:{spec.cloud_file_name}" if spec.cloud_file_name else None


def hub_rows(spec: DatasetSpec) -> Iterator[RawRow]:
    """The rows of a dataset on Hugging Face or ModelScope; subset, folder and split are passed on as they stand.

    Raises: DataError when the hub's package is missing or the hub does not give the dataset.
    """
    place = str(place_of(spec))
    try:
        from datasets import load_dataset

        home = _from_modelscope(str(spec.ms_hub_url)) if place.startswith("ms:") else spec.hf_hub_url
        found: Any = load_dataset(home, name=spec.subset, data_dir=spec.folder, split=spec.split)
    except ImportError:
        raise DataError("Datasets of a hub need another package.", place, "pip install 'sartor[hub]'") from None
    except Exception as error:  # hubs raise whatever their clients raise
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(
            f"The hub does not give the dataset: {reason}.",
            f"dataset {spec.name!r}, {place}",
            "Check its name, subset and split, and the network; or download it and use file_name.",
        ) from None
    yield from number_rows(found)


def _from_modelscope(name: str) -> str:
    """The folder with a ModelScope dataset's files, brought by its own client; offline (`HF_HUB_OFFLINE=1`) as kept."""
    from modelscope_hub import HubApi

    offline = os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on")
    return str(HubApi().download_repo(name, repo_type="dataset", local_files_only=offline))


def number_rows(rows: Iterable[Any]) -> Iterator[RawRow]:
    """Rows with their number from 1; dates and decimals become text."""
    for number, row in enumerate(rows, 1):
        yield RawRow(number, None, plain(row))


def script_rows(spec: DatasetSpec, *, allow_scripts: bool, allow_outside: bool) -> Iterator[RawRow]:
    """The rows of `<folder>/<folder>.py`: a module with `load(split)`, or a `datasets` builder. This runs its code.

    Raises: DataError without permission (showing the file's SHA-256), or when the module is neither.
    """
    if "\0" in str(spec.script_url):
        raise DataError("script_url holds a NUL character.", f"dataset {spec.name!r}", "Write a plain folder name.")
    folder = spec.folder_path / str(spec.script_url)
    file = folder / f"{folder.name}.py"
    if not allow_outside and not file.resolve().is_relative_to(spec.folder_path.resolve()):
        raise DataError("The script lies outside the dataset folder.", str(file), "Move it, or add --allow-outside.")
    if not file.is_file():
        raise DataError("The script is not there.", str(file), "script_url names a folder that holds <folder>.py.")
    content = file.read_bytes()
    if not allow_scripts:
        raise DataError(
            "The dataset is a script, which would run on this machine.",
            f"{file}, SHA-256 {hashlib.sha256(content).hexdigest()}",
            "Read it. If you trust it, add --allow-scripts.",
        )
    module = _module(file, content)
    if hasattr(module, "load"):
        yield from number_rows(module.load(spec.split))
    else:
        yield from _builder_rows(module, file, spec)


def _module(file: Path, content: bytes) -> ModuleType:
    """The module of exactly these bytes, which were shown."""
    made = importlib.util.spec_from_loader(file.stem, None, origin=str(file))
    assert made is not None
    module = importlib.util.module_from_spec(made)
    module.__file__ = str(file)
    try:
        exec(compile(content, str(file), "exec"), module.__dict__)
    except Exception as error:  # whatever a stranger's code raises
        raise DataError(f"The script fails: {error!r}.", str(file), "Mend it.") from None
    return module


def _builder_rows(module: ModuleType, file: Path, spec: DatasetSpec) -> Iterator[RawRow]:
    try:
        from datasets import GeneratorBasedBuilder
    except ImportError:
        raise DataError("The script needs the package datasets.", str(file), "pip install 'sartor[hub]'") from None
    builders = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, GeneratorBasedBuilder) and value is not GeneratorBasedBuilder
    ]
    if not builders:
        raise DataError("The script has no load(split) and no builder.", str(file), "Write def load(split): ….")
    with TemporaryDirectory(prefix="sartor-") as cache:
        builder = builders[0](cache_dir=cache, config_name=spec.subset)
        builder.download_and_prepare()
        yield from number_rows(builder.as_dataset(split=spec.split))


@contextmanager
def cloud_file(spec: DatasetSpec, *, allow_network: bool) -> Iterator[Path]:
    """A file of `s3://`, `gs://`, `https://` … brought here, and removed afterwards.

    Raises: DataError without permission, for an address of this machine or of a private network, for a redirect (which
    could lead to one), or when the file cannot be had.
    """
    url = str(spec.cloud_file_name)
    if not allow_network:
        raise DataError("The file lies on the network.", url, "Add --allow-network, or download it and use file_name.")
    scheme = url.partition("://")[0].lower()
    if scheme not in ("http", "https", *CLOUDS):
        known = ", ".join(f"{name}://" for name in ("https", *CLOUDS))
        raise DataError("cloud_file_name names no cloud store.", url, f"There are: {known}; use file_name for files.")
    with TemporaryDirectory(prefix="sartor-") as folder:
        path = Path(folder) / (PurePosixPath(urlsplit(url).path).name or "data")
        pieces = _read_web(url) if scheme in ("http", "https") else _read_store(url)
        with path.open("wb") as here:
            for piece in pieces:
                here.write(piece)
        yield path


def _read_store(url: str) -> Iterator[bytes]:
    try:
        import fsspec

        with fsspec.open(url, "rb") as there:
            while chunk := there.read(CHUNK):
                yield chunk
    except ImportError as error:
        raise DataError(f"This store needs another package: {error}.", url, "pip install it.") from None
    except Exception as error:  # each of fsspec's file systems raises its own
        raise DataError(f"The file cannot be had: {error}.", url, "Check the address and the access.") from None


def _read_web(url: str) -> Iterator[bytes]:
    import httpx

    try:
        asked = httpx.URL(url)
        address = _public_address(asked, url)
        # The address that was checked is the one called: a name could lead elsewhere when it is asked again.
        with (
            httpx.Client(timeout=TIMEOUT_S, trust_env=False, follow_redirects=False) as client,
            client.stream(
                "GET",
                asked.copy_with(host=address),
                headers={"Host": asked.netloc.decode("ascii")},
                extensions={"sni_hostname": asked.host},
            ) as answer,
        ):
            if answer.is_redirect:
                there = answer.headers.get("location", "nowhere")
                raise DataError(f"The address leads on to {there}.", url, "If you trust that, write it instead.")
            answer.raise_for_status()
            yield from answer.iter_bytes(CHUNK)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise DataError(f"The file cannot be had: {error}.", url, "Check the address and the access.") from None


def _public_address(asked: Any, url: str) -> str:
    """The address that a host name leads to. Raises: DataError when any of its addresses is not a public one."""
    try:
        found = socket.getaddrinfo(asked.host, asked.port or asked.scheme, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise DataError(f"The host {asked.host!r} is not found: {error}.", url, "Check the address.") from None
    addresses = [str(entry[4][0]) for entry in found]
    for address in addresses:
        if not is_public(address):
            raise DataError(f"{asked.host!r} is {address}, no public address.", url, "Download it and use file_name.")
    return addresses[0]


def is_public(address: str) -> bool:
    """Whether an IP address belongs to the public net, also where it wraps an IPv4 one."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    inner = getattr(parsed, "ipv4_mapped", None) or getattr(parsed, "sixtofour", None) or parsed
    return bool(inner.is_global and parsed.is_global) and not inner.is_multicast
