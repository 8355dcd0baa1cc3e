"""What may leave this machine because a settings file says so: nothing, until a person has named the place."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from sartor.base.api_keys import check_url, host_of, is_loopback
from sartor.base.errors import ConfigError
from sartor.base.i18n import Text, tr
from sartor.base.permissions import Permissions


@dataclass(frozen=True, slots=True)
class Upload:
    """What a setting sends, and to which host."""

    setting: str
    host: str
    what: Text


def uploads_of(report_to: Iterable[str], judge_endpoint: str | None) -> tuple[Upload, ...]:
    """What these settings would send from this machine. Raises: ConfigError for a bad address."""
    found = []
    for name in report_to:
        if host := tracker_host(name):
            what = tr("The run's settings and its numbers would be sent to {host}.", host=host)
            found.append(Upload("report_to", host, what))
    if judge_endpoint and (host := endpoint_host(judge_endpoint)):
        what = tr("The held-out questions, references and answers would be sent to {host}.", host=host)
        found.append(Upload("judge_endpoint", host, what))
    return tuple(found)


def endpoint_host(url: str) -> str | None:
    """The host that texts for an endpoint leave for; None on this machine. Raises: ConfigError for a bad address."""
    check_url(url)
    host = host_of(url)
    return None if is_loopback(host) else host


def tracker_host(name: str, environ: Mapping[str, str] = os.environ) -> str | None:
    """The host that an experiment tracker sends to; None where it writes on this machine."""
    match name:
        case "wandb":
            offline = environ.get("WANDB_MODE", "").lower() in ("offline", "disabled", "dryrun")
            url = "" if offline else environ.get("WANDB_BASE_URL") or "https://api.wandb.ai"
        case "swanlab":
            offline = environ.get("SWANLAB_MODE", "").lower() in ("local", "offline", "disabled")
            url = "" if offline else environ.get("SWANLAB_API_HOST") or "https://api.swanlab.cn"
        case "mlflow":
            url = environ.get("MLFLOW_TRACKING_URI", "")
        case "trackio":
            url = "https://huggingface.co" if environ.get("TRACKIO_SPACE_ID") else ""
        case "comet_ml":
            url = "https://www.comet.com"
        case "clearml":
            url = environ.get("CLEARML_API_HOST") or "https://api.clear.ml"
        case _:
            url = ""
    host = host_of(url) if url.startswith(("http://", "https://")) else ""
    return host if host and not is_loopback(host) else None


def is_allowed(host: str, permissions: Permissions) -> bool:
    return host in {_named(word) for word in permissions.allow_upload}


def require_allowed(uploads: Iterable[Upload], permissions: Permissions) -> None:
    """Raises: ConfigError for the first upload to a host that no person has named."""
    for upload in uploads:
        if not is_allowed(upload.host, permissions):
            raise ConfigError(
                upload.what,
                upload.setting,
                "If you want that, add --allow-upload {host} on the command line.",
                code="upload-not-allowed",
                host=upload.host,
            )


def allowing_typed(permissions: Permissions, typed: Mapping[str, Any]) -> Permissions:
    """Who types `judge_endpoint=…` or `report_to=…` on the command line has named the host."""
    trackers = typed.get("report_to") or ()
    trackers = trackers.split(",") if isinstance(trackers, str) else trackers
    judge = typed.get("judge_endpoint")
    uploads = uploads_of([str(name).strip() for name in trackers], str(judge) if judge else None)
    return replace(permissions, allow_upload=(*permissions.allow_upload, *(upload.host for upload in uploads)))


def _named(word: str) -> str:
    """A host as people write it: alone, with a port, or as an address."""
    try:
        return host_of(word if "://" in word else f"//{word}")
    except ValueError:
        return ""
