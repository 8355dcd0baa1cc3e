"""The queue of long jobs: one process per device, with all state in files, so that jobs outlive the page's server."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sartor.base.errors import RunError, SartorError
from sartor.base.files import atomic_write
from sartor.base.locks import REGISTRY_WAIT_S, file_lock, is_locked
from sartor.base.process import ProcessIdentity

Kind = Literal["train", "estimate", "compare", "export", "generate", "compare_many"]
VISIBLE = "CUDA_VISIBLE_DEVICES"
State = Literal["waiting", "running", "done", "failed", "stopped"]


@dataclass(frozen=True, slots=True)
class Job:
    """One folder in .sartor/jobs, with job.json, started.json, progress.json, ended.json and log.txt."""

    path: Path
    kind: Kind
    run: str
    """The run's name in runs/."""
    arguments: Mapping[str, Any]
    model_dirs: tuple[str, ...] = ()
    """The folders of models that the page was started with."""

    @classmethod
    def read_from(cls, path: Path) -> Job:
        """The job of a folder. Raises: OSError, ValueError, KeyError, TypeError for a damaged one."""
        saved = json.loads((path / "job.json").read_text(encoding="utf-8"))
        return cls(path, saved["kind"], saved["run"], saved["arguments"], tuple(saved.get("model_dirs", ())))

    @property
    def id(self) -> str:
        return self.path.name

    def state(self) -> State:
        """From the files, and from whether the process that was started is still alive."""
        if (ended := self.read("ended.json")) is not None:
            return "done" if ended.get("exit") == 0 else "stopped" if self._stop_requested() else "failed"
        if self._is_alive():
            return "running"
        if self._stop_requested():
            return "stopped"
        return "waiting" if self.read("started.json") is None else "failed"

    def read(self, name: str) -> dict[str, Any] | None:
        with contextlib.suppress(OSError, ValueError):
            found = json.loads((self.path / name).read_text(encoding="utf-8"))
            return found if isinstance(found, dict) else None
        return None

    def write(self, name: str, value: Mapping[str, Any]) -> None:
        atomic_write(self.path / name, json.dumps(value, ensure_ascii=False, default=str))

    def error(self) -> SartorError | None:
        """What ended a failed job; None if its process did not get to write it."""
        ended = self.read("ended.json")
        return SartorError.from_json(ended) if ended and "what" in ended else None

    def log(self, max_bytes: int = 20_000) -> str:
        """The end of the process's output."""
        with contextlib.suppress(OSError), (self.path / "log.txt").open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - max_bytes))
            return file.read().decode("utf-8", "replace").replace("\r", "\n")
        return ""

    def stop(self) -> None:
        """Ask the process to end (training saves a checkpoint first); a waiting job leaves the queue."""
        (self.path / "stop").touch()
        process = self._process()
        if process and self.read("ended.json") is None and process.is_alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGTERM)

    @property
    def worker(self) -> Path:
        """What the job's process locks: a second one for the same job ends at once."""
        return self.path / "worker"

    def _stop_requested(self) -> bool:
        return (self.path / "stop").exists()

    def _process(self) -> ProcessIdentity | None:
        return ProcessIdentity.from_json((self.read("started.json") or {}).get("process"))

    def _is_alive(self) -> bool:
        """Whether its process runs, also one that was started by a server which died before it could write so, or on
        another machine."""
        process = self._process()
        alive = process.is_alive() if process else None
        return is_locked(self.worker) if alive is None else alive


class Jobs:
    """The queue of one workspace. Several servers can share it: the folder is locked while one starts a job."""

    def __init__(self, folder: Path, work_in: Path, model_dirs: Sequence[Path] = ()) -> None:
        self.folder, self.work_in = folder, work_in
        self.model_dirs = tuple(str(place.resolve()) for place in model_dirs)
        self.children: list[subprocess.Popen[bytes]] = []

    def add(self, kind: Kind, run: str, /, *, prepare: Callable[[], None] = lambda: None, **arguments: Any) -> Job:
        """Add a job at the end of the queue; `prepare` writes what it will read, once it is sure that it is added.

        Raises: RunError (code `queued`) when the run has such a job already: a second click, or another window.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with file_lock(self.folder, REGISTRY_WAIT_S):
            self._require_new(kind, run, arguments)
            prepare()
            path = self.folder / f"{time.time_ns():020d}-{secrets.token_hex(3)}"
            path.mkdir()
            job = Job(path, kind, run, arguments, self.model_dirs)
            saved = {"kind": kind, "run": run, "arguments": arguments, "model_dirs": self.model_dirs}
            job.write("job.json", saved)
        self.advance()
        return job

    def _require_new(self, kind: Kind, run: str, arguments: Mapping[str, Any]) -> None:
        """A run is trained by one job; other jobs may follow one another, but not the same one twice."""
        for job in self.all():
            same = (job.kind, job.run) == (kind, run) and (kind == "train" or job.arguments == arguments)
            if same and kind != "estimate" and job.state() in ("waiting", "running"):
                raise RunError(
                    "The queue has this job already.",
                    run,
                    "Wait for it, or stop it; for another training, choose another output_dir.",
                    code="queued",
                )

    def all(self) -> list[Job]:
        """All jobs, oldest first."""
        found = []
        for file in sorted(self.folder.glob("*/job.json")):
            with contextlib.suppress(ValueError, KeyError, TypeError, OSError):
                found.append(Job.read_from(file.parent))
        return found

    def of(self, run: str, kind: Kind | None = None) -> Job | None:
        """The newest job of a run."""
        return next((j for j in reversed(self.all()) if j.run == run and kind in (None, j.kind)), None)

    def runs_to_come(self) -> set[str]:
        """The runs of waiting and started jobs: a run has no folder before it has a plan."""
        return {job.run for job in self.all() if job.kind == "train" and job.state() in ("waiting", "running")}

    def advance(self) -> None:
        """Start the oldest waiting jobs: one per free device, and never two of one run."""
        self.children = [child for child in self.children if child.poll() is None]
        if not self.folder.exists():  # nothing was ever added, and the folder may be read-only
            return
        with contextlib.suppress(RunError), file_lock(self.folder):
            jobs = [(job, job.state()) for job in self.all()]
            running = [job for job, state in jobs if state == "running"]
            every, busy = devices(), {job.run for job in running}
            taken = [(job.read("started.json") or {}).get("device", every[0]) for job in running]
            free = [device for device in every if device not in taken]
            for job in [job for job, state in jobs if state == "waiting"]:
                if free and job.run not in busy:
                    busy.add(job.run)
                    self._start(job, free.pop(0))

    def _start(self, job: Job, device: str) -> None:
        with (job.path / "log.txt").open("ab") as log:
            child = subprocess.Popen(
                [sys.executable, "-P", "-m", "sartor.web.worker", str(job.path)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.work_in,
                start_new_session=True,
                env={**os.environ, VISIBLE: device} if device else None,
            )
        self.children.append(child)
        job.write("started.json", {"process": ProcessIdentity.of(child.pid).to_json(), "device": device})


def devices(gpus: Path = Path("/proc/driver/nvidia/gpus")) -> tuple[str, ...]:
    """The GPUs that jobs may use, as in CUDA_VISIBLE_DEVICES; a single empty name if there are none."""
    named = os.environ.get(VISIBLE)
    if named is None:
        named = ",".join(str(place) for place, _ in enumerate(gpus.glob("*")))
    return tuple(part.strip() for part in named.split(",") if part.strip()) or ("",)
