"""One file per export format.

A file here declares its format as `PLUGIN`; an installed package declares its own through an entry point:

    [project.entry-points."sartor.exporters"]
    my-format = "my_package.export:PLUGIN"

`sartor export --to my-format`, the Python API and the page then know it. The files are imported to list the formats, so
they import heavy libraries (torch, gguf) inside `export` only.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from sartor.base.config import RunConfig
from sartor.base.errors import ConfigError
from sartor.base.i18n import Text, tr
from sartor.base.registry import Registry

if TYPE_CHECKING:
    from sartor.inference.engine import Engine

ANSWERS_DIFFER = "answers-differ"
"""The code of the ExportError of a self-check that failed."""
SelfCheck: TypeAlias = Literal["always", "optional", "never"]


@dataclass(frozen=True, slots=True)
class Source:
    """The model to export: base and tuned in one engine on the CPU, where its parts are, and what to call it."""

    engine: Engine
    """With the tuned weights only; in float32 if the exporter or the options want it, else in the model's own type."""
    config: RunConfig
    """The settings that the engine was loaded with; `model_name_or_path` is the folder of the model."""
    adapter: Path | None
    """The adapter's folder; None for a fully tuned model."""
    name: str
    """What the exported model is called, as in a file name."""

    @property
    def model(self) -> str:
        """The folder of the base model, or of the fully tuned one."""
        return self.config.model.model_name_or_path


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """What the user chose among the exporter's options."""

    quant: str = ""
    """One of the exporter's `quants`; empty where it has none."""
    dtype: str = ""
    """One of the exporter's `dtypes`; empty: the type that the model's weights are stored in."""
    check: bool = True
    """False: skip a self-check that is optional."""


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far an exported model may differ from the one that was trained."""

    max_difference: float
    """Of a likely token's log-probability, in nats."""
    min_agreement: float
    """The share of positions, 0–1, at which both choose the same token."""


@dataclass(frozen=True, slots=True)
class Check:
    """An exported model compared with the adapter over its base in float32, at every position of some answers."""

    format: str
    prompts: int
    positions: int
    agreement: float
    """The share of positions, 0–1, at which both choose the same token."""
    largest: float
    """The largest difference of log-probability (nats) among the reference's likeliest tokens."""
    tolerance: Tolerance
    where: Text
    """Prompt, position and token of the largest difference."""

    @property
    def passed(self) -> bool:
        return self.largest <= self.tolerance.max_difference and self.agreement >= self.tolerance.min_agreement

    @property
    def text(self) -> Text:
        """One line that says what was measured and what is allowed."""
        return tr(
            "{format}: {agreement} of {positions} tokens agree (at least {min_agreement}), largest logit difference "
            "{largest} (limit {limit})",
            format=self.format,
            agreement=f"{self.agreement:.1%}",
            positions=self.positions,
            min_agreement=f"{self.tolerance.min_agreement:.0%}",
            largest=f"{self.largest:.4f}",
            limit=f"{self.tolerance.max_difference:g}",
        )

    def to_json(self) -> dict[str, Any]:
        """As export.json and `--json` have it."""
        return {
            "form": self.format,
            "prompts": self.prompts,
            "positions": self.positions,
            "agreement": round(self.agreement, 6),
            "largest": round(self.largest, 6),
            "limit": self.tolerance.max_difference,
            "min_agreement": self.tolerance.min_agreement,
            "where": self.where.render("en"),
        }

    def __str__(self) -> str:
        return str(self.text)


@dataclass(frozen=True, slots=True)
class ExportResult:
    """What an exporter returns: the checks that passed, and what export.json says besides (JSON values)."""

    checks: tuple[Check, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Exported:
    """A finished export."""

    folder: Path
    files: tuple[Path, ...]
    checks: tuple[Check, ...]
    notes: tuple[Text, ...] = ()
    """What was decided otherwise than asked by default."""


class Exporter(ABC):
    """A format in which a model leaves Sartor. Set the attributes and implement `export`."""

    name: str
    """What `--to` calls it."""
    label: Text
    """A few words for the page: what it is called there."""
    description: Text
    """A sentence for the page: what it holds, who reads it."""
    quants: tuple[str, ...] = ()
    """The values of `--quant`, the default first; empty: the format has none."""
    dtypes: tuple[str, ...] = ()
    """The values of `--dtype`, coarse to precise; empty: the format has none. By default the model's own type, and the
    next more precise one where that would change the answers."""
    needs_float32: bool = False
    """Whether the weights must be merged in float32, because the format stores other numbers than the model does."""
    self_check: SelfCheck = "never"
    """Whether `export` compares the answers of what it wrote with the model's: `optional` heeds `options.check`."""

    example_files: tuple[str, ...] = ()
    """The files of an export called "model" with default options; the tests compare them."""

    @abstractmethod
    def export(self, source: Source, folder: Path, options: ExportOptions) -> ExportResult:
        """Write the files into `folder`, which exists and is empty.

        The folder takes its final place, with an export.json, only if nothing is raised. Raises: ExportError when the
        model does not fit the format or a check fails.
        """

    def dtypes_to_try(self, own: str, chosen: str | None) -> tuple[str, ...]:
        """The type that was chosen; else the model's own, and those more precise, in order."""
        if chosen or not self.dtypes:
            return (chosen or "",)
        return self.dtypes[self.dtypes.index(own) if own in self.dtypes else -1 :]

    def options(self, quant: str | None = None, dtype: str | None = None, check: bool = True) -> ExportOptions:
        """The options for `export`, with the defaults filled in.

        Raises: ConfigError for an option that the format does not have, or an unknown value.
        """
        quant = quant or (self.quants[0] if self.quants else "")
        for option, value, known in (("--quant", quant, self.quants), ("--dtype", dtype or "", self.dtypes)):
            if value and not known:
                raise ConfigError(
                    "The format {format} has no option {option}.",
                    option,
                    "Remove {option}.",
                    format=self.name,
                    option=option,
                )
            if value and value not in known:
                raise ConfigError(
                    "Unknown value {value!r} for {option}.",
                    option,
                    "Choose one of: {known}.",
                    value=value,
                    option=option,
                    known=", ".join(known),
                )
        return ExportOptions(quant, dtype or "", check)


EXPORTERS: Registry[Exporter] = Registry("export format", __name__, Exporter)
