"""Run a reader of one file in a child process with limits on memory, time and output, and yield what it reads."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import IO, Any

from sartor.base.errors import DataError
from sartor.base.file_budget import MIB, FileBudget, over_budget
from sartor.base.i18n import Text, tr
from sartor.base.open_file import OpenFile

MAX_LINE = 64 * MIB
"""Bytes of one line of the child's output; a batch of rows has about one MiB."""
WAIT_FACTOR = 4
"""The child may take this many times its processor time between two lines: other processes run too."""


def read_limited(
    reader: str, file: OpenFile, arguments: Mapping[str, Any], budget: FileBudget, where: str
) -> Iterator[Any]:
    """What `reader` yields for the file, one JSON value at a time.

    `reader` is `module:function`, called in the child as `function(file, **arguments)`; it yields values that JSON can
    hold. It gets the open file itself, not its path.

    Raises: DataError as the reader does, or naming the budget that it exceeded, or when it crashed.
    """
    import psutil

    memory = min(budget.memory_bytes, int(psutil.virtual_memory().total * 0.8))
    request = {
        "reader": reader,
        "arguments": dict(arguments),
        "path": str(file.path),
        "descriptor": file.descriptor if os.name == "posix" else None,
        "memory_bytes": memory,
        "cpu_s": budget.cpu_s,
    }
    with _child(request) as child:
        ended = None
        for line in _lines(child, budget, where):
            value = json.loads(line)
            if isinstance(value, dict):
                ended = value
                break
            yield from value
        if ended is None:
            raise _died(child.wait(), memory, budget, where)
        _raise_error(ended, memory, where)


@contextmanager
def _child(request: Mapping[str, Any]) -> Iterator[subprocess.Popen[bytes]]:
    given = request["descriptor"]
    child = subprocess.Popen(
        # -P: a file named json.py in the working directory is not a module
        [sys.executable, "-P", "-m", "sartor.base.limited_worker", json.dumps(request)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        pass_fds=() if given is None else (given,),
        env={**os.environ, "MALLOC_ARENA_MAX": "1", "OMP_NUM_THREADS": "1", "ARROW_DEFAULT_MEMORY_POOL": "system"},
    )
    try:
        yield child
    finally:
        child.kill()
        if child.stdout:
            child.stdout.close()
        child.wait()


def _lines(child: subprocess.Popen[bytes], budget: FileBudget, where: str) -> Iterator[bytes]:
    assert child.stdout is not None
    total, wait_s = 0, WAIT_FACTOR * budget.cpu_s
    while line := _line(child, child.stdout, wait_s):
        total += len(line)
        if total > budget.decoded_bytes or not line.endswith(b"\n"):
            limit = min(budget.decoded_bytes, MAX_LINE) if total == len(line) else budget.decoded_bytes
            raise over_budget(
                tr("The file expands to more than {limit:,} MiB, far more than text does.", limit=limit // MIB), where
            )
        yield line


def _line(child: subprocess.Popen[bytes], out: IO[bytes], wait_s: float) -> bytes:
    timer = threading.Timer(wait_s, child.kill)
    timer.daemon = True
    timer.start()
    try:
        return out.readline(MAX_LINE)
    finally:
        timer.cancel()


def _raise_error(ended: Mapping[str, Any], memory: int, where: str) -> None:
    if "error" in ended:
        what, place, fix = (Text.from_json(ended["error"][name]) for name in ("what", "where", "fix"))
        raise DataError(what, place, fix, code=str(ended["error"]["code"]))
    if "memory" in ended:
        raise _too_much_memory(memory, where)
    if "crash" in ended:
        raise _damaged(str(ended["crash"]), where)


def _died(status: int, memory: int, budget: FileBudget, where: str) -> DataError:
    """The error for a child that ended without saying why: a signal, or a library that aborted."""
    if status in (-getattr(signal, "SIGXCPU", 24), -getattr(signal, "SIGKILL", 9)):
        limit = tr("Reading the file took more than {limit:,} s of processor time.", limit=budget.cpu_s)
        return over_budget(limit, where)
    if status == -signal.SIGABRT:  # what Rust and C++ do when memory cannot be allocated
        return _too_much_memory(memory, where)
    return _damaged(tr("the reader ended with status {status}", status=status), where)


def _too_much_memory(memory: int, where: str) -> DataError:
    return over_budget(tr("Reading the file takes more than {limit:,} MiB of memory.", limit=memory // MIB), where)


def _damaged(reason: str | Text, where: str) -> DataError:
    return DataError("Could not read the file: {error}.", where, "Save or download it again.", error=reason)
