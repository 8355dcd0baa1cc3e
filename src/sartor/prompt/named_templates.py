"""The named templates, one file each in `templates/`, and which of them a tokenizer has the control tokens for."""

from __future__ import annotations

import functools
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources

from sartor.base.errors import PromptError, did_you_mean
from sartor.prompt.tokenizer import Codec

ADVISED = ("chatml", "qwen", "llama3", "default", "alpaca", "vicuna")
"""Named first where several would do: the best known, and those that need no tokens of their own."""
MAX_ADVISED = 5


@dataclass(frozen=True, slots=True)
class NamedTemplate:
    """One file of `templates/`: a TOML header in a comment, then the Jinja source."""

    name: str
    about: str
    provenance: str
    control: tuple[str, ...]
    """Control tokens that the tokenizer must have; `eos_token` and `bos_token` stand for the tokenizer's own."""
    example: str
    source: str

    def missing(self, codec: Codec, special: Mapping[str, str]) -> list[str]:
        """The control tokens that a tokenizer lacks; `special` are its own, as `eos_token`."""
        texts = {token: special.get(token) if token in ("eos_token", "bos_token") else token for token in self.control}
        return [token for token, text in texts.items() if text is None or codec.token_id(text) is None]


@functools.cache
def named(name: str) -> NamedTemplate:
    """Read a named template. Raises: PromptError with the closest name."""
    file = resources.files("sartor.prompt.templates").joinpath(f"{name}.jinja")
    if not re.fullmatch(r"\w+", name) or not file.is_file():
        raise PromptError("Unknown template {name!r}.", "template", did_you_mean(name, template_names()), name=name)
    head, _, source = file.read_text(encoding="utf-8").removeprefix("{#\n").partition("#}\n")
    header = tomllib.loads(head)
    return NamedTemplate(
        name, header["about"], header["provenance"], tuple(header["control"]), header["example"], source.rstrip("\n")
    )


@functools.cache
def template_names() -> tuple[str, ...]:
    """The names of all templates in `templates/`, sorted."""
    files = resources.files("sartor.prompt.templates").iterdir()
    return tuple(sorted(file.name.removesuffix(".jinja") for file in files if file.name.endswith(".jinja")))


def usable(codec: Codec, special: Mapping[str, str], *, tools: bool = False) -> list[str]:
    """The named templates whose control tokens a tokenizer has, best known first; `tools`: that render them."""
    names = [*ADVISED, *(name for name in template_names() if name not in ADVISED)]
    fitting = [name for name in names if not named(name).missing(codec, special)]
    return [name for name in fitting if not tools or re.search(r"\bfor \w+ in tools\b", named(name).source)]


def advice(codec: Codec, special: Mapping[str, str], *, tools: bool = False, without: str = "") -> str:
    """`template=qwen, template=llama3`: names that work with this tokenizer, at most a few; empty where none does."""
    names = [name for name in usable(codec, special, tools=tools) if name != without]
    return ", ".join(f"template={name}" for name in names[:MAX_ADVISED])
