"""Settings of `sartor generate`: what is asked about the documents, of which model, and at which price."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from sartor.base.errors import ConfigError, did_you_mean

EMBEDDED = "smollm2-135m"
"""The model that comes with Sartor."""
DEFAULT_WORKERS = 8


class GenerationKeywords(TypedDict, total=False):
    """The keyword arguments of `sartor.generate` and `estimate_generation`, each with a default."""

    dataset_dir: str | Path
    encoding: str | None
    language: str | None
    prompt: str | Path | None
    style: str | Path | None
    per_chunk: int | None
    pairs: int | None
    multi_turn: bool
    workers: int
    model: str
    endpoint: str | None
    key_env: str | None
    price_in: float
    price_out: float
    max_cost: float | None


@dataclass(frozen=True, slots=True)
class EndpointSettings:
    """An OpenAI-compatible endpoint; prices are per million tokens, in the user's currency."""

    url: str
    model: str
    key_env: str | None = None
    """The environment variable that holds the API key."""
    price_in: float = 0.0
    price_out: float = 0.0
    max_cost: float | None = None
    """No request begins that could bring the total above it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QAGenerationSettings:
    """One generation: the dataset to write, and how its pairs are asked for."""

    name: str
    dataset_dir: Path = Path("data")
    encoding: str | None = None
    """Of text documents; None: detected."""
    language: str | None = None
    """Of the prompt, `en` or `zh`; None: that of the documents."""
    prompt: Path | None = None
    """A prompt file to use instead of the built-in one."""
    style: Path | None = None
    """A file whose text says how questions should be written."""
    per_chunk: int | None = None
    """Questions on each passage; None: two, or as many as `pairs` needs."""
    pairs: int | None = None
    """Pairs in all, spread over the documents; None: as many as the passages yield."""
    multi_turn: bool = False
    workers: int = DEFAULT_WORKERS
    """Requests in flight at once, at most; a local model answers one at a time."""
    model: str = EMBEDDED
    """A local model; not used with an endpoint."""
    endpoint: EndpointSettings | None = None

    @classmethod
    def from_keywords(cls, name: str, given: GenerationKeywords) -> QAGenerationSettings:
        """The settings in `sartor.generate`'s keyword arguments. Raises: ConfigError for an unknown or odd one."""
        values: dict[str, Any] = dict(given)
        for key in values:
            if key not in GenerationKeywords.__annotations__:
                raise ConfigError(
                    "Unknown setting {name!r}.",
                    "sartor.generate",
                    did_you_mean(key, GenerationKeywords.__annotations__),
                    name=key,
                )
        for key in ("dataset_dir", "prompt", "style"):
            if values.get(key):
                values[key] = Path(values[key])
        endpoint = _endpoint_of(values)
        return cls(name=name, endpoint=endpoint, **values)

    @property
    def uses_embedded_model(self) -> bool:
        return self.endpoint is None and self.model == EMBEDDED


def _endpoint_of(values: dict[str, Any]) -> EndpointSettings | None:
    """Take the endpoint's keywords out of `values`."""
    url = values.pop("endpoint", None)
    given: Mapping[str, Any] = {
        key: values.pop(key) for key in ("key_env", "price_in", "price_out", "max_cost") if key in values
    }
    if given.get("max_cost") is not None and not (given.get("price_in") or given.get("price_out")):
        raise ConfigError("A spending cap needs prices.", "--max-cost", "Add --price-in and --price-out.")
    if not url:
        if unused := next((key for key, value in given.items() if value), None):
            option = "--" + unused.replace("_", "-")
            raise ConfigError("{option} is for an endpoint.", option, "Add --endpoint, or remove it.", option=option)
        return None
    return EndpointSettings(url, values.get("model", EMBEDDED), **given)
