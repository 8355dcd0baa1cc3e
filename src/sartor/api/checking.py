"""`check`: a dataset's faults and oddities by the settings it would be trained with, its rejects, its safe mendings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sartor import checks as linting
from sartor.api.prepare_data import Progress, load_named, make_encoder
from sartor.base.config import RunConfig
from sartor.base.errors import DataError
from sartor.base.permissions import Permissions
from sartor.data.read_rows import read_values

if TYPE_CHECKING:
    from sartor.checks import CheckResult, FixResult


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What was found, and what was written when it was asked for."""

    result: CheckResult
    rejected: int | None = None
    """Rows written to the file of rejects."""
    fixed: FixResult | None = None


def check(
    name: str,
    config: RunConfig | None = None,
    *,
    rejects: str | Path | None = None,
    fix: str | Path | None = None,
    progress: Progress | None = None,
    permissions: Permissions | None = None,
    **settings: object,
) -> CheckReport:
    """Find what is wrong or odd in a dataset; writes the skipped rows to `rejects`, a mended copy to `fix`.

    Raises: DataError when the dataset cannot be read, or a file to write is one of its own.
    """
    config = (config or RunConfig()).replace(**settings)
    loaded = load_named(config, (name,), permissions)
    own = {file.path.resolve() for file in loaded.files}
    for target in (rejects, fix):
        if target and Path(target).resolve() in own:
            raise DataError("This is the dataset's own file.", str(target), "Write to another file.")
    eval_dataset = config.data.eval_dataset
    eval_rows = load_named(config, eval_dataset, permissions).examples if eval_dataset else ()
    encoder = make_encoder(config)
    checked = linting.check(loaded, encoder, config, held_out=eval_rows, progress=progress)
    rejected, mended = None, None
    if rejects:
        lost = (*loaded.skipped, *encoder.encode_all(loaded.examples).skipped)
        rejected = linting.write_rejects(
            Path(rejects), lost, read_values(loaded.spec, config.data.encoding, permissions)
        )
    if fix:
        mended = linting.apply_fixes(
            Path(fix), read_values(loaded.spec, config.data.encoding, permissions), loaded.spec
        )
    return CheckReport(checked, rejected, mended)
