"""Metrics: one file is one metric under its own NAME; a file scores one pair, a corpus, or row losses, and no more.

A file holds `NAME`, `RANGE`, `SIGNATURE`, `MEANING` (en, zh) and `EXAMPLES`, and one of

- `score(prediction, reference) -> float`: one pair; the metric is the mean over pairs;
- `corpus(predictions, references) -> float`: all pairs at once;
- `losses(nll_sums, label_tokens) -> (value, per row)`: from the model's own losses, no text.

Optional: `HIGHER_IS_BETTER = False`, and `AS_IT_STANDS = True` for texts that must not be cleaned first.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from sartor.base import registry
from sartor.base.errors import ConfigError, did_you_mean

PACKAGE = __name__
Examples = tuple[tuple[str, str, float], ...]

_HAN = re.compile(r"[\u3400-\u9FFF\uF900-\uFAFF]")
_REASONING = re.compile(r"^\s*<think>.*?</think>", re.DOTALL)
_SPECIAL = re.compile(r"<\|[^|<>\s]{1,40}\|>|</?s>|<(?:pad|bos|eos|unk|(?:start|end)_of_turn)>")


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric: what it is called, where its values live, and its one function (the other two are None)."""

    name: str
    range: tuple[float, float]
    signature: str
    meaning: Mapping[str, str]
    higher_is_better: bool
    cleaned: bool
    pair: Callable[[str, str], float] | None
    corpus: Callable[[Sequence[str], Sequence[str]], float] | None
    losses: Callable[[Sequence[float], Sequence[int]], tuple[float, tuple[float, ...]]] | None
    corpus_signature: Callable[[Sequence[str]], str] | None = None


def names() -> tuple[str, ...]:
    """The names of all built-in metrics, LLaMA-Factory's four first."""
    found = [metric.name for metric in map(_of_module, registry.plugins(PACKAGE))]
    return tuple(sorted(found, key=lambda name: (name not in LLAMA_FACTORY, name)))


LLAMA_FACTORY = ("bleu-4", "rouge-1", "rouge-2", "rouge-l")
"""LLaMA-Factory's own four, digit for digit, oddities included."""


def find(wanted: Iterable[str]) -> tuple[Metric, ...]:
    """Metrics by name; `all` is every built-in one; a path that ends in `.py` is a metric of the user's own.

    Raises: ConfigError for an unknown name (with the nearest) or a file that is no metric.
    """
    found: dict[str, Metric] = {}
    for name in wanted:
        if name.endswith(".py"):
            own = from_file(Path(name))
            found[own.name] = own
        elif name == "all":
            found.update({known: by_name(known) for known in names()})
        else:
            found[name] = by_name(name)
    return tuple(found.values())


def by_name(name: str) -> Metric:
    """One built-in metric. Raises: ConfigError naming the nearest."""
    file = re.sub(r"[-.]", "_", name)
    if file not in registry.names(PACKAGE):
        raise ConfigError(f"There is no metric {name!r}.", "metrics", did_you_mean(name, names()))
    return _of_module(registry.plugin(PACKAGE, file))


def from_file(path: Path) -> Metric:
    """A user's metric: a Python file with `score(prediction, reference)` or `corpus(predictions, references)`.

    The file is run as Python, with all that Python may do. Raises: ConfigError when it is missing, fails, or has none.
    """
    if not path.is_file():
        raise ConfigError("The metric's file is not there.", str(path), "Give the path of a Python file.")
    spec = importlib.util.spec_from_file_location(f"sartor_metric_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ConfigError(f"The metric's file fails: {type(error).__name__}: {error}.", str(path)) from error
    if not any(hasattr(module, function) for function in ("score", "corpus")):
        raise ConfigError(
            "The file defines no metric.", str(path), "Write def score(prediction: str, reference: str) -> float: …"
        )
    return _of_module(module, name=path.stem)


def clean(text: str) -> str:
    """The answer alone: a leading `<think>…</think>` and control tokens removed, blanks at both ends stripped."""
    return _SPECIAL.sub("", _REASONING.sub("", text)).strip()


def mostly_chinese(texts: Iterable[str]) -> bool:
    """Whether more than half of all letters are Han characters: such texts are best cut into characters."""
    joined = "".join(texts)
    return 2 * len(_HAN.findall(joined)) > sum(map(str.isalpha, joined))


def _of_module(module: ModuleType, name: str = "") -> Metric:
    low, high = getattr(module, "RANGE", (0.0, 1.0))
    name = getattr(module, "NAME", name)
    return Metric(
        name=name,
        range=(float(low), float(high)),
        signature=getattr(module, "SIGNATURE", f"{name}|own"),
        meaning=getattr(module, "MEANING", {}),
        higher_is_better=getattr(module, "HIGHER_IS_BETTER", True),
        cleaned=not getattr(module, "AS_IT_STANDS", False),
        pair=getattr(module, "score", None),
        corpus=getattr(module, "corpus", None),
        losses=getattr(module, "losses", None),
        corpus_signature=getattr(module, "signature", None),
    )
