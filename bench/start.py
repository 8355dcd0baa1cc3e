"""How long the doors take to open: `import sartor` and `sartor --help`, each in fresh processes; the median of ten.

python bench/start.py
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time


def seconds(*arguments: str) -> float:
    """One fresh process."""
    started = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
    return time.perf_counter() - started


def main() -> None:
    for name, arguments in (
        ("python alone", ("-c", "pass")),
        ("import sartor", ("-c", "import sartor")),
        ("sartor --help", ("-m", "sartor", "--help")),
    ):
        print(f"{name:<16} {statistics.median(seconds(*arguments) for _ in range(10)):.3f} s")


if __name__ == "__main__":
    main()
