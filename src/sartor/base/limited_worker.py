"""The child of `limited_process`: takes its limits, runs one reader on the open file, and writes JSON lines."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import IO, Any

from sartor.base.errors import SartorError
from sartor.base.open_file import OpenFile, open_regular

BATCH, BATCH_CHARACTERS = 256, 1 << 20


def main(request: str) -> int:
    """Run the reader; the last line is an object that says how it ended."""
    given = json.loads(request)
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is not output
    try:
        module, _, name = given["reader"].partition(":")
        read = getattr(import_module(module), name)
        limit_resources(given["memory_bytes"], given["cpu_s"])
        ended = _run(read, given, out)
    except MemoryError:
        ended = {"memory": True}
    except SartorError as error:
        ended = {"error": error.to_json()}
    except Exception as error:  # a reader of foreign bytes may raise anything
        ended = {"crash": f"{type(error).__name__}: {error}"[:500]}
    with suppress(BrokenPipeError):
        out.write(json.dumps(ended).encode() + b"\n")
        out.flush()
    return 0


def _run(read: Any, given: Mapping[str, Any], out: IO[bytes]) -> dict[str, Any]:
    path = Path(given["path"])
    if given["descriptor"] is not None:
        _write(read(OpenFile(path, given["descriptor"]), **given["arguments"]), out)
    else:
        with open_regular(path) as file:
            _write(read(file, **given["arguments"]), out)
    return {"done": True}


def _write(values: Any, out: IO[bytes]) -> None:
    batch: list[str] = []
    size = 0
    for value in values:
        text = json.dumps(value, ensure_ascii=False)
        batch.append(text)
        size += len(text)
        if len(batch) == BATCH or size > BATCH_CHARACTERS:
            _flush(batch, out)
            batch, size = [], 0
    _flush(batch, out)


def _flush(batch: list[str], out: IO[bytes]) -> None:
    out.write(b"[" + ",".join(batch).encode("utf-8", "surrogatepass") + b"]\n")
    out.flush()


def limit_resources(memory_bytes: int, cpu_s: int | None) -> None:
    """Limit this process's further memory and processor time, where the system can (not on Windows)."""
    try:
        resource: Any = import_module("resource")
    except ImportError:
        return
    with suppress(OSError, ValueError):
        import psutil

        limit, most = psutil.Process().memory_info().vms + memory_bytes, resource.getrlimit(resource.RLIMIT_AS)[1]
        limit = limit if most == resource.RLIM_INFINITY else min(limit, most)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    with suppress(OSError, ValueError):
        if cpu_s is not None:
            resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s + 5))
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
