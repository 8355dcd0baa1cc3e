"""How often a verdict is false, and how often a real difference is found: simulated, as tables for docs/benchmarks.md.

python bench/verdict.py [--draws 4000]     the shapes are those of tests/attack/test_statistics.py
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from attack.test_statistics import SECTIONS, TAILS, Floats, claims_of
from sartor.evaluation.statistics import interval_of_mean

Tail = Callable[[np.random.Generator, int], Floats]
ROWS = (10, 12, 20, 50, 200)


def table(head: list[str], lines: list[list[str]]) -> None:
    for line in (head, ["---"] * len(head), *lines):
        print("|", " | ".join(line), "|")
    print()


def percent(claims: int, draws: int) -> str:
    return f"{100 * claims / draws:.1f}"


def independent_rows(draws: int) -> None:
    """Differences with a true mean of zero: % of draws with a claim."""
    lines = []
    for name, tail in TAILS.items():
        lines.append([name, *(percent(claims_of(_rows(tail, n), draws), draws) for n in ROWS)])
    table(["rows, % false claims", *map(str, ROWS)], lines)


def sections(draws: int) -> None:
    """The same for rows in sections; `within` is the share of a row's variance that its section explains."""
    columns = [(tail, within) for tail in ("normal", "exponential", "lognormal, sigma 1") for within in (1.0, 0.3, 0.0)]
    lines = []
    for shape, sizes in SECTIONS.items():
        section_of = np.repeat(np.arange(len(sizes)), sizes)
        names, cells = [str(section) for section in section_of], []
        for tail, within in columns:
            draw = _sectioned(TAILS[tail], within, section_of, names)
            cells.append(percent(claims_of(draw, draws), draws))
        lines.append([shape, *cells])
    head = [f"{tail.partition(',')[0]} {within:g}" for tail, within in columns]
    table(["sections, % false claims", *head], lines)


def _rows(tail: Tail, rows: int) -> Callable[[], tuple[Floats, None]]:
    random = np.random.default_rng(1)
    return lambda: (tail(random, rows), None)


def _shifted(effect: float) -> Tail:
    return lambda random, rows: random.normal(effect, 1, rows)


def _sectioned(
    tail: Tail, within: float, section_of: Floats, names: list[str]
) -> Callable[[], tuple[Floats, list[str]]]:
    random = np.random.default_rng(2)
    scale = float(np.std(tail(random, 100_000)))

    def draw() -> tuple[Floats, list[str]]:
        effects, own = tail(random, len(set(names))) / scale, tail(random, len(names)) / scale
        return math.sqrt(within) * effects[section_of] + math.sqrt(1 - within) * own, names

    return draw


def unseen(draws: int) -> None:
    """What no method can see: most rows gain one, a few lose so much that the mean is zero, with noise of one."""
    lines = []
    for share in (0.1, 0.05, 0.02):
        found = (claims_of(_rows(_rare(share), n), draws) for n in ROWS)
        lines.append([f"{share:.0%} of rows lose {1 / share - 1:.0f}", *(percent(claims, draws) for claims in found)])
    table(["a rare loss, % false claims", *map(str, ROWS)], lines)


def _rare(share: float) -> Tail:
    def tail(random: np.random.Generator, rows: int) -> Floats:
        return np.where(random.random(rows) < share, 1 - 1 / share, 1.0) + random.normal(0, 1, rows)

    return tail


def power(draws: int) -> None:
    """How often a real difference of that many standard deviations is found."""
    lines = []
    for effect in (0.5, 0.8, 1.2):
        found = (claims_of(_rows(_shifted(effect), n), draws) for n in ROWS)
        lines.append([f"{effect}", *(percent(claims, draws) for claims in found)])
    table(["normal rows, % found, at", *map(str, ROWS)], lines)


def width(draws: int) -> None:
    """The interval's length beside Student's t."""
    from scipy import stats

    lines = []
    for name in ("normal", "exponential", "t with 3 df"):
        random, cells = np.random.default_rng(4), []
        for n in ROWS:
            ratios = []
            for _ in range(draws // 4):
                rows = TAILS[name](random, n)
                found, ends = interval_of_mean(rows), stats.ttest_1samp(rows, 0).confidence_interval()
                ratios.append((found.high - found.low) / (ends.high - ends.low))
            cells.append(f"{np.median(ratios):.2f}")
        lines.append([name, *cells])
    table(["median length / Student's t", *map(str, ROWS)], lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=4000)
    draws = parser.parse_args().draws
    independent_rows(draws)
    sections(draws // 2)
    unseen(draws)
    power(draws)
    width(draws)


if __name__ == "__main__":
    main()
