"""Rows from outside the dataset folder: hubs, scripts, the network; scripts and the network need permission."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import TYPE_CHECKING, Any

from sartor.base.addresses import is_public
from sartor.base.errors import DataError
from sartor.base.i18n import tr
from sartor.base.open_file import open_regular
from sartor.base.permissions import Permissions
from sartor.base.types import RawRow
from sartor.data import access
from sartor.data.dataset_spec import DatasetSpec
from sartor.data.sources.arrow import to_json_value

if TYPE_CHECKING:
    import httpx

CHUNK = 1 << 20
TIMEOUT_S = 60.0


def place_of(spec: DatasetSpec) -> str | None:
    """`hf:…`, `ms:…`, `script:…` or `cloud:…`: where an entry's rows come from; None for local files."""
    modelscope = os.environ.get("USE_MODELSCOPE_HUB", "").lower() in ("1", "true")
    if spec.ms_hub_url and (modelscope or not spec.hf_hub_url):
        return f"ms:{spec.ms_hub_url}"
    if spec.hf_hub_url:
        return f"hf:{spec.hf_hub_url}"
    if spec.script_url:
        return f"script:{spec.script_url}"
    return f"cloud:{spec.cloud_file_name}" if spec.cloud_file_name else None


def hub_rows(spec: DatasetSpec) -> Iterator[RawRow]:
    """The rows of a dataset on Hugging Face or ModelScope; subset, folder and split are passed on unchanged.

    Raises: DataError when the hub's package is missing or the dataset could not be loaded.
    """
    place = str(place_of(spec))
    name = access.hub_name(place.partition(":")[2], spec)
    try:
        from datasets import load_dataset

        home = _from_modelscope(name) if place.startswith("ms:") else name
        found: Any = load_dataset(home, name=spec.subset, data_dir=spec.folder, split=spec.split)
    except ImportError:
        raise DataError("Datasets from a hub need another package.", place, "pip install 'sartor[hub]'") from None
    except Exception as error:  # hubs raise whatever their clients raise
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(
            "Could not load the dataset from the hub: {reason}.",
            tr("dataset {name!r}, {place}", name=spec.name, place=place),
            "Check its name, subset and split, and the network; or download it and use file_name.",
            reason=reason,
        ) from None
    yield from number_rows(found)


def _from_modelscope(name: str) -> str:
    """The folder with a ModelScope dataset's files, downloaded by its client; `HF_HUB_OFFLINE=1`: from its cache."""
    from modelscope_hub import HubApi

    offline = os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on")
    return str(HubApi().download_repo(name, repo_type="dataset", local_files_only=offline))


def number_rows(rows: Iterable[Any]) -> Iterator[RawRow]:
    """Rows numbered from 1; dates and decimals become text."""
    for number, row in enumerate(rows, 1):
        yield RawRow(number, None, to_json_value(row))


def script_rows(spec: DatasetSpec, permissions: Permissions) -> Iterator[RawRow]:
    """The rows of `<folder>/<folder>.py`: a module with `load(split)`, or a `datasets` builder. This runs its code.

    Raises: DataError without permission (showing the file's SHA-256), or when the module is neither.
    """
    file = access.script_file(spec, permissions)
    if not file.is_file():
        raise DataError("Script not found.", file, "script_url is the name of a folder with a file <folder>.py.")
    with open_regular(file, access.folder_of(spec, permissions)) as opened:
        content = opened.read_bytes()
    if not permissions.allow_scripts:
        raise DataError(
            "The dataset is a script that would run on this machine.",
            tr("{file}, SHA-256 {sha256}", file=file, sha256=hashlib.sha256(content).hexdigest()),
            "Read it; if you trust it, add --allow-scripts.",
        )
    module = _module(file, content)
    if hasattr(module, "load"):
        yield from number_rows(module.load(spec.split))
    else:
        yield from _builder_rows(module, file, spec)


def _module(file: Path, content: bytes) -> ModuleType:
    """The module of exactly these bytes, whose hash was shown."""
    made = importlib.util.spec_from_loader(file.stem, None, origin=str(file))
    assert made is not None
    module = importlib.util.module_from_spec(made)
    module.__file__ = str(file)
    try:
        exec(compile(content, str(file), "exec"), module.__dict__)
    except Exception as error:  # it may raise anything
        raise DataError("The script failed: {error}.", file, "Fix the script.", error=repr(error)) from None
    return module


def _builder_rows(module: ModuleType, file: Path, spec: DatasetSpec) -> Iterator[RawRow]:
    try:
        from datasets import GeneratorBasedBuilder
    except ImportError:
        raise DataError("The script needs the package datasets.", file, "pip install 'sartor[hub]'") from None
    builders = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, GeneratorBasedBuilder) and value is not GeneratorBasedBuilder
    ]
    if not builders:
        raise DataError("The script has neither load(split) nor a builder.", file, "Write def load(split): ….")
    with TemporaryDirectory(prefix="sartor-") as cache:
        builder = builders[0](cache_dir=cache, config_name=spec.subset)
        builder.download_and_prepare()
        yield from number_rows(builder.as_dataset(split=spec.split))


@contextmanager
def cloud_file(spec: DatasetSpec, permissions: Permissions) -> Iterator[Path]:
    """A file of `s3://`, `gs://`, `https://` …, downloaded, and removed afterwards.

    Raises: DataError without permission, for an address of this machine or of a private network, for a redirect (which
    could lead to one), or when it could not be downloaded.
    """
    url = access.cloud_address(spec, permissions)
    with TemporaryDirectory(prefix="sartor-") as folder:
        path = Path(folder) / access.cloud_file_name(url)
        pieces = _read_web(url) if url.lower().startswith("http") else _read_store(url)
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
        raise DataError(
            "This store needs another package: {error}.", url, "Install it with pip.", error=str(error)
        ) from None
    except Exception as error:  # each of fsspec's file systems raises its own errors
        raise _download_error(url, error) from None


def _download_error(url: str, error: Exception) -> DataError:
    return DataError(
        "Could not download the file: {error}.", url, "Check the address and your access.", error=str(error)
    )


def _read_web(url: str) -> Iterator[bytes]:
    import httpx

    try:
        parsed = httpx.URL(url)
        address = _public_address(parsed, url)
        # Connect to the address that was checked: the name could resolve to another one the next time.
        with (
            httpx.Client(timeout=TIMEOUT_S, trust_env=False, follow_redirects=False) as client,
            client.stream(
                "GET",
                parsed.copy_with(host=address),
                headers={"Host": parsed.netloc.decode("ascii")},
                extensions={"sni_hostname": parsed.host},
            ) as response,
        ):
            if response.is_redirect:
                target = response.headers.get("location", "")
                raise DataError(
                    "The address redirects to {target}.", url, "If you trust that, use it instead.", target=target
                )
            response.raise_for_status()
            yield from response.iter_bytes(CHUNK)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise _download_error(url, error) from None


def _public_address(parsed: httpx.URL, url: str) -> str:
    """The IP address of a host. Raises: DataError when any of its addresses is not public."""
    try:
        found = socket.getaddrinfo(parsed.host, parsed.port or parsed.scheme, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise DataError(
            "Host {host!r} not found: {error}.", url, "Check the address.", host=parsed.host, error=str(error)
        ) from None
    addresses = [str(entry[4][0]) for entry in found]
    for address in addresses:
        if not is_public(address):
            raise DataError(
                "Host {host!r} has the address {address}, which is not public.",
                url,
                "Download the file and use file_name.",
                host=parsed.host,
                address=address,
            )
    return addresses[0]
