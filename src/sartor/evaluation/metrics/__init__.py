"""One file per metric, or per family of them.

A file here declares its metrics as `PLUGIN` or `PLUGINS`; an installed package declares them through entry points:

    [project.entry-points."sartor.metrics"]
    my-metric = "my_package.metrics:PLUGIN"

A metric is one of three kinds, each an abstract class with the one method `score`: `PairMetric` scores one answer
against its reference, `CorpusMetric` all of them at once, `LossMetric` the model's own losses.

    class StartsAlike(PairMetric):
        def score(self, prediction: str, reference: str) -> float:
            return 100.0 if prediction[:1] == reference[:1] else 0.0

    PLUGIN = StartsAlike(
        name="starts-alike",
        signature="first-character|mean-of-rows|my-package-1",
        meaning=tr("The share of answers that start with the reference's first character."),
        examples=(("cat", "car", 100.0), ("cat", "dog", 0.0)),
    )
"""

from __future__ import annotations

import importlib.util
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from sartor.base.errors import ConfigError
from sartor.base.i18n import Text
from sartor.base.registry import Registry

PairExamples: TypeAlias = tuple[tuple[str, str, float], ...]
"""(prediction, reference, the score it must get)"""

_HAN = re.compile(r"[\u3400-\u9FFF\uF900-\uFAFF]")
_REASONING = re.compile(r"^\s*<think>.*?</think>", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Metric(ABC):
    """What every metric declares. Subclass `PairMetric`, `CorpusMetric` or `LossMetric`, not this class."""

    name: str
    """What settings, the command line and result files call it, such as `rouge-1.char`."""
    signature: str
    """How the number is made, in parts joined by `|`, with a version: equal signatures mean comparable numbers."""
    meaning: Text
    """One or two sentences for the report: what the number says."""
    range: tuple[float, float] = (0.0, 100.0)
    """The lowest and the highest value; either may be infinite."""
    higher_is_better: bool = True


@dataclass(frozen=True, kw_only=True)
class PairMetric(Metric):
    """A score for each row. The metric's value is the mean over the rows, so it can decide a verdict."""

    clean_texts: bool = True
    """Whether both texts pass through `clean` first; rows whose reference is blank then are left out."""
    examples: PairExamples = ()
    """Scores known beforehand; the tests compare them."""

    @abstractmethod
    def score(self, prediction: str, reference: str) -> float:
        """The score of one answer, inside `range`. Neither text is None; the prediction may be empty."""


@dataclass(frozen=True, kw_only=True)
class CorpusMetric(Metric):
    """A score over all rows together, with no value for a single row."""

    clean_texts: bool = True
    """As for a PairMetric."""
    examples: PairExamples = ()
    """Scores known beforehand, each of a corpus of one row."""

    @abstractmethod
    def score(self, predictions: Sequence[str], references: Sequence[str]) -> float:
        """The score of all answers, inside `range`. The two sequences are equally long and not empty."""

    def signature_for(self, references: Sequence[str]) -> str:
        """The signature where it depends on the texts (their language, say); `signature` otherwise."""
        return self.signature


@dataclass(frozen=True, kw_only=True)
class LossMetric(Metric):
    """A score from the model's losses on the reference answers; no text is generated for it."""

    examples: tuple[tuple[tuple[float, ...], tuple[int, ...], float], ...] = ()
    """(nll_sums, label_tokens, the value they must get)"""

    @abstractmethod
    def score(self, nll_sums: Sequence[float], label_tokens: Sequence[int]) -> tuple[float, tuple[float, ...]]:
        """(the value, each row's value, or nothing where the value is not a mean over rows).

        `nll_sums` holds each row's summed negative log-likelihood in nats, `label_tokens` its number of label tokens
        (at least 1).
        """


METRICS: Registry[Metric] = Registry("metric", __name__, Metric)

LLAMA_FACTORY = ("bleu-4", "rouge-1", "rouge-2", "rouge-l")
"""LLaMA-Factory's own four, digit for digit, oddities included."""


def find(wanted: Iterable[str]) -> tuple[Metric, ...]:
    """Metrics by name, each once. `all` is every built-in and installed one; a path that ends in `.py` is a user's own.

    Raises: ConfigError for an unknown name (with the nearest) or a file that defines no metric.
    """
    found: dict[str, Metric] = {}
    for name in wanted:
        if name.endswith(".py"):
            own = from_file(Path(name))
            found[own.name] = own
        elif name == "all":
            found.update({known: METRICS.get(known) for known in _all_names()})
        else:
            found[name] = METRICS.get(name)
    return tuple(found.values())


def from_file(path: Path) -> Metric:
    """A user's metric: a Python file with `score(prediction, reference)` or `corpus(predictions, references)`.

    Optional in the file: `NAME` (else the file's name), `RANGE` (else 0 to 1), `HIGHER_IS_BETTER`, `CLEAN_TEXTS`,
    `MEANING` and `SIGNATURE`; or a whole `PLUGIN`, as an installed package has it.

    The file runs as Python, with all that Python may do. Raises: ConfigError when it is missing, fails, or has none.
    """
    if not path.is_file():
        raise ConfigError("File not found.", str(path), "Give the path of a Python file.")
    spec = importlib.util.spec_from_file_location(f"sartor_metric_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # the user's own code: whatever it raises
        raise ConfigError(
            "The metric's file fails: {error}: {reason}.", str(path), error=type(error).__name__, reason=str(error)
        ) from error
    return _metric_in(vars(module), path)


def clean(text: str) -> str:
    """The answer alone: a leading `<think>…</think>` removed, whitespace at both ends stripped.

    Text such as `<s>` stays: control tokens were never decoded, so whatever looks like one was written.
    """
    return _REASONING.sub("", text).strip()


def mostly_chinese(texts: Iterable[str]) -> bool:
    """Whether more than half of all letters are Han characters: such texts are best split into characters."""
    joined = "".join(texts)
    return 2 * len(_HAN.findall(joined)) > sum(map(str.isalpha, joined))


def _all_names() -> list[str]:
    return sorted(METRICS.names(), key=lambda name: (name not in LLAMA_FACTORY, name))


@dataclass(frozen=True, kw_only=True)
class _PairFunction(PairMetric):
    function: Callable[[str, str], float]

    def score(self, prediction: str, reference: str) -> float:
        return self.function(prediction, reference)


@dataclass(frozen=True, kw_only=True)
class _CorpusFunction(CorpusMetric):
    function: Callable[[Sequence[str], Sequence[str]], float]

    def score(self, predictions: Sequence[str], references: Sequence[str]) -> float:
        return self.function(predictions, references)


def _metric_in(namespace: Mapping[str, Any], path: Path) -> Metric:
    plugin = namespace.get("PLUGIN")
    if isinstance(plugin, Metric):
        return plugin
    kinds = {"score": _PairFunction, "corpus": _CorpusFunction}
    kind = next((kind for kind in kinds if callable(namespace.get(kind))), None)
    if kind is None:
        raise ConfigError(
            "The file defines no metric.", str(path), "Write def score(prediction: str, reference: str) -> float: …"
        )
    name = str(namespace.get("NAME", path.stem))
    low, high = namespace.get("RANGE", (0.0, 1.0))
    return kinds[kind](
        name=name,
        signature=str(namespace.get("SIGNATURE", f"{name}|own")),
        meaning=Text(str(namespace.get("MEANING", ""))),
        range=(float(low), float(high)),
        higher_is_better=bool(namespace.get("HIGHER_IS_BETTER", True)),
        clean_texts=bool(namespace.get("CLEAN_TEXTS", True)),
        function=namespace[kind],
    )
