"""The reasons and fixes of ledger and check in English and Chinese, keyed by code; one TOML file per language."""

from __future__ import annotations

import functools
import locale
import os
import tomllib
from collections.abc import Mapping
from importlib import resources

LANGUAGES = ("en", "zh")


def language() -> str:
    """`SARTOR_LANG`, else the locale's language where we speak it, else English."""
    wanted = os.environ.get("SARTOR_LANG") or os.environ.get("LC_ALL") or os.environ.get("LANG") or ""
    wanted = wanted or locale.getlocale()[0] or ""
    return "zh" if wanted.lower().startswith("zh") else "en"


@functools.cache
def catalogue(lang: str) -> Mapping[str, Mapping[str, str]]:
    """code → {"reason": …, "fix": …} of one language."""
    return tomllib.loads(resources.files("sartor.base").joinpath(f"texts/{lang}.toml").read_text(encoding="utf-8"))


def text(code: str, part: str, params: Mapping[str, object], lang: str | None = None) -> str:
    """The text of `code` with `{name}` filled from `params`; an unknown code is our own bug.

    Raises: KeyError when the catalogue lacks the code or the text names a parameter that is not given.
    """
    return catalogue(lang or language())[code][part].format_map(dict(params))
