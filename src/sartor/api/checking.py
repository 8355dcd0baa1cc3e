"""`check`: lint a dataset with the settings it would be trained with, and write its rejects and safe fixes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sartor import checks as linting
from sartor.api.prepare_data import Progress, load_named, make_encoder
from sartor.base.config import RunConfig
from sartor.base.errors import ConfigError, DataError
from sartor.base.files import system_errors
from sartor.data.import_record import read_refused
from sartor.data.read_rows import read_raw, read_values

if TYPE_CHECKING:
    from sartor.checks import CheckResult, FixResult


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What `check` found and wrote."""

    result: CheckResult
    rejected: int | None = None
    """How many rows were written to `rejects`."""
    fixed: FixResult | None = None


# The keywords are the public API, one for each option of the command.
@system_errors()
def check(
    name: str,
    config: RunConfig | None = None,
    *,
    rejects: str | Path | None = None,
    fix: str | Path | None = None,
    remove_repeats: bool = False,
    mask_personal: bool = False,
    progress: Progress | None = None,
    **settings: object,
) -> CheckReport:
    """Find problems in a dataset; `rejects` is a file for the skipped rows, `fix` one for a fixed copy.

    In the copy, repeated rows are left out with `remove_repeats`, and personal data is masked with `mask_personal`.

    Raises: DataError when the dataset cannot be read, or an output file is one of its own.

    Example:
        >>> report = sartor.check("chapters", model_name_or_path=model)
        >>> report.result.errors
        ()
    """
    if (remove_repeats or mask_personal) and not fix:
        raise ConfigError(
            "Repeats and personal data are changed in a copy only.", "--fix", "Name the copy: --fix FILE.json."
        )
    config = (config or RunConfig()).replace(**settings)
    loaded = load_named(config, (name,))
    own = {file.path.resolve() for file in loaded.files}
    for target in (rejects, fix):
        if target and Path(target).resolve() in own:
            raise DataError("The output file is one of the dataset's own files.", target, "Write to a different file.")
    eval_dataset = config.data.eval_dataset
    eval_rows = load_named(config, eval_dataset).examples if eval_dataset else ()
    encoder = make_encoder(config)
    checked = linting.check(loaded, encoder, config, held_out=eval_rows, progress=progress)
    rejected, fixed = None, None
    if rejects:
        skipped = (*loaded.skipped, *encoder.encode_all(loaded.examples).skipped)
        rows = read_raw(loaded.spec, encoding=config.data.encoding, permissions=config.permissions)
        refused = read_refused(loaded.spec.folder_path, name)
        rejected = linting.write_rejects(Path(rejects), skipped, rows, (row for row in refused if not row.repaired))
    if fix:
        values = read_values(loaded.spec, config.data.encoding, config.permissions)
        fixed = linting.apply_fixes(
            Path(fix), values, loaded.spec, remove_repeats=remove_repeats, mask_personal=mask_personal
        )
    return CheckReport(checked, rejected, fixed)
