"""The command line called in this process."""

from __future__ import annotations

from sartor.cli import main


def run(*words: object) -> int:
    try:
        main([str(word) for word in words])
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0
