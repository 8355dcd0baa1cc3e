"""Renders templates from standard input in a process that may use little memory and time."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

MEMORY = 1 << 30
"""Bytes on top of what the process has when it starts to render."""
VALUES = {
    "messages": [{"role": "user", "content": "x" * 1000}, {"role": "assistant", "content": "y"}],
    "tools": [{"type": "function", "function": {"name": "f", "parameters": {"a": [1, 2, {"b": None}]}}}],
}


def outcomes(sources: Sequence[str], cpu_s: int) -> list[str]:
    """How each rendering ended: "ok" or an error's name. The process dies if one takes too much."""
    code = "from support.limited_child import main; main()"
    given = json.dumps([cpu_s, list(sources)])
    tests = str(Path(__file__).parents[1])
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {tests!r}); {code}"]
    done = subprocess.run(command, input=given, capture_output=True, text=True)
    lines = done.stdout.splitlines()
    assert done.returncode == 0, f"died at {sources[len(lines)][:200]!r}: {done.stderr[-500:]}"
    return lines


def main() -> None:
    cpu_s, sources = json.loads(sys.stdin.read())
    from sartor.prompt.template_environment import compiled

    compiled("")
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY,) * 2)
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s + 1))
    for source in sources:
        print(_outcome(source), flush=True)


def _outcome(source: str) -> str:
    from sartor.prompt.template_environment import compiled, render

    values: dict[str, Any] = dict(VALUES)
    try:
        render(compiled(source), values)
    except Exception as error:
        return type(error).__name__
    return "ok"
