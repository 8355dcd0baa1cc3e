"""The process of one job: calls `sartor.api` and writes progress and outcome into the job's folder."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sartor import api
from sartor.api.resolve_target import config_for, run_of
from sartor.base.config import read_config
from sartor.base.errors import SartorError
from sartor.base.locks import file_lock
from sartor.web import generated_pairs
from sartor.web.form import check_model, check_paths, check_run
from sartor.web.jobs import Job
from sartor.web.workspace import Workspace

EVERY_S = 0.5


def work(job: Job) -> Any:
    """Do the job. Returns the `result` of ended.json. Raises: SartorError."""
    progress = _writer(job)
    arguments = job.arguments
    _check_paths(job)
    match job.kind:
        case "train":
            run = api.train(Path(arguments["settings"]), fresh=bool(arguments.get("fresh")))
            return {"run": run.path.name, "already_finished": run.already_finished}
        case "estimate":
            found, plan = api.estimate(Path(arguments["settings"]))
            return {
                "estimate": found.to_json(),
                "reasons": {
                    name: [getattr(plan, name, None), reason.to_json()] for name, reason in plan.reasons.items()
                },
            }
        case "compare":
            verdict = api.compare(arguments["run"], arguments.get("overrides", ()), progress=progress)
            return {"outcome": verdict.outcome, "report": str(api.report(arguments["run"]))}
        case "compare_many":
            compared = api.compare_several(
                *arguments["targets"], overrides=arguments["overrides"], out=arguments["out"], progress=progress
            )
            return {"folder": arguments["out"], **compared.to_json()}
        case "generate":
            return generated_pairs.generate(job, progress)
        case "export":
            done = api.export(
                arguments["run"],
                arguments["to"],
                arguments["out"],
                quant=arguments.get("quant"),
                dtype=arguments.get("dtype"),
            )
            return {
                "folder": str(done.folder),
                "files": [file.name for file in done.files],
                "checks": [check.to_json() for check in done.checks],
            }


def _check_paths(job: Job) -> None:
    """Refuse what leads out of the page's folders, also where a run's own settings do.

    Raises: ConfigError.
    """
    workspace, arguments = Workspace(Path.cwd(), tuple(map(Path, job.model_dirs))), job.arguments
    match job.kind:
        case "train" | "estimate":
            check_paths(workspace, read_config(Path(arguments["settings"])))
        case "export":
            check_model(workspace, config_for(arguments["run"]))
        case "compare":
            check_run(workspace, config_for(arguments["run"], arguments.get("overrides", ())))
        case "compare_many":
            for target in arguments["targets"]:
                if run_of(Path(target)):
                    check_run(workspace, config_for(target, arguments["overrides"]))


def _writer(job: Job) -> Callable[[int, int | None], None]:
    last = 0.0

    def progress(done: int, total: int | None) -> None:
        nonlocal last
        if time.monotonic() - last > EVERY_S or done == total:
            last = time.monotonic()
            job.write("progress.json", {"done": done, "total": total})

    return progress


def main(path: Path) -> int:
    job = Job.read_from(path)
    with file_lock(job.worker):  # of two servers, or after one that died, a second process may be started
        return 0 if job.read("ended.json") else _end(job)


def _end(job: Job) -> int:
    """Do the job and write how it ended."""
    try:
        job.write("ended.json", {"exit": 0, "result": work(job)})
        return 0
    except SartorError as error:
        job.write("ended.json", error.to_json())
        return error.exit_code
    except Exception as error:
        job.write("ended.json", SartorError(f"{type(error).__name__}: {error}").to_json())
        raise


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
