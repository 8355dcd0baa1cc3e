"""Reads files and datasets for the page in processes of their own: the page's process parses no data."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
from collections import OrderedDict
from typing import Any, BinaryIO, cast

import psutil

from sartor.base.errors import SartorError
from sartor.web import wire
from sartor.web.workspace import Workspace

MAX_PROCESSES = 3
MEMORY_FRACTION = 0.5
"""Of the machine's memory, for one process that reads."""
MAX_ANSWER = 256 << 20
"""Bytes of one answer: what a page shows is small, except for the lengths of millions of rows."""


class Reader:
    """One warm process for each dataset or import, at most a few at once; a process that dies is started again."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.processes: OrderedDict[str, _Process] = OrderedDict()
        self.lock = threading.Lock()

    def call(self, name: str, /, about: str = "", **arguments: Any) -> Any:
        """The result of `Readings.<name>(**arguments)`; blocks. `about` names the process, usually the dataset.

        Raises: SartorError as the call does, or when the process died.
        """
        with self._process(about) as process:
            result = process.ask(name, arguments)
        if isinstance(result, SartorError):
            raise result
        return result

    @contextlib.contextmanager
    def _process(self, about: str) -> Any:
        with self.lock:
            process = self.processes.setdefault(about, _Process(self.workspace))
            self.processes.move_to_end(about)
            while len(self.processes) > MAX_PROCESSES:
                _, old = self.processes.popitem(last=False)
                threading.Thread(target=old.close, daemon=True).start()
        with process.lock:
            yield process
            if process is not self.processes.get(about):
                process.end()  # it made room for others before it began

    def close(self) -> None:
        """End all processes."""
        with self.lock:
            for process in self.processes.values():
                process.end()
            self.processes.clear()


class _Process:
    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.lock = threading.Lock()
        self.child: subprocess.Popen[bytes] | None = None

    def ask(self, name: str, arguments: dict[str, Any]) -> Any:
        if self.child is None or self.child.poll() is not None:
            self.end()
            self.child = self._start()
        given, out = cast(BinaryIO, self.child.stdin), cast(BinaryIO, self.child.stdout)
        try:
            given.write(wire.dumps({"call": name, "arguments": arguments}))
            given.flush()
            line = out.readline(MAX_ANSWER)
        except OSError:
            line = b""
        if not line.endswith(b"\n"):
            self.end()
            return SartorError(
                "Reading the data took too much memory, or its process was ended.",
                str(arguments.get("file") or arguments.get("name") or ""),
                "Use the command line for this file, or a smaller part of it.",
                code="file-budget",
            )
        return wire.loads(line)

    def _start(self) -> subprocess.Popen[bytes]:
        limit = int(psutil.virtual_memory().total * MEMORY_FRACTION)
        return subprocess.Popen(
            [
                sys.executable,
                "-P",  # a file named json.py in the working directory is not a module
                "-m",
                "sartor.web.reading_process",
                str(self.workspace.folder),
                str(limit),
                *map(str, self.workspace.model_dirs),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def close(self) -> None:
        """End the process when it has answered."""
        with self.lock:
            self.end()

    def end(self) -> None:
        if self.child:
            self.child.kill()
            with contextlib.suppress(OSError):  # what was not written yet
                self.child.communicate()
            self.child = None
