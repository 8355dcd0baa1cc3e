"""Pairs a second of LLaMA-Factory's four metrics, beside LLaMA-Factory's own way, digits compared on every pair.

    python bench/metrics.py [DATA_FOLDER] [--pairs 2000] [--segment 10000]

Needs the test extras (nltk, jieba, rouge-chinese). One core, one process. Texts: the answers in DATA_FOLDER's JSON
files (alpaca or sharegpt), or generated ones; pairs are an answer and an edited copy of 10-2,000 characters.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from sartor.evaluation.metrics import LLAMA_FACTORY
from sartor.evaluation.metrics._words import jieba_words
from sartor.evaluation.score import score
from support import metric_oracles as oracles


def texts_of(value: Any) -> Iterator[str]:
    """Every text anywhere inside a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from texts_of(item)


def all_texts(folder: Path | None, random_source: random.Random) -> list[str]:
    """Distinct texts of the folder's files, in their order; generated ones without a folder."""
    if folder is None:
        return [oracles.random_text(random_source, 400) for _ in range(12_000)]
    found: dict[str, None] = {}
    for file in sorted(folder.glob("*.json*")):
        content = file.read_text(encoding="utf-8")
        rows = json.loads(content) if file.suffix == ".json" else [json.loads(line) for line in content.splitlines()]
        found.update(dict.fromkeys(texts_of(rows)))
    for file in sorted(folder.glob("*.txt")):
        found.update(dict.fromkeys(file.read_text(encoding="utf-8").splitlines()))
    return [text for text in found if text.strip()]


def edited_pairs(texts: list[str], count: int, random_source: random.Random) -> list[tuple[str, str]]:
    """Answers of 10-2,000 characters, each with a copy that has a stretch replaced by one of another answer."""
    usable = [text for text in texts if len(text) >= 10]
    pairs = []
    for _ in range(count):
        length = int(10 * 200 ** random_source.random())  # log-uniform 10-2,000, then joined until long enough
        text = ""
        while len(text) < length:
            text += random_source.choice(usable)
        text = text[:length]
        other = random_source.choice(usable)[: length // 3]
        at = random_source.randrange(len(text))
        pairs.append((text, text[:at] + other + text[at + len(other) :]))
    return pairs


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """What the work gives, and its seconds."""
    started = time.perf_counter()
    result = work()
    return result, time.perf_counter() - started


def compare_segmentation(texts: list[str]) -> None:
    """Prints on how many texts the segmentation differs from jieba's, and both speeds."""
    wanted, slow = timed(lambda: [oracles.words(text) for text in texts])
    got, fast = timed(lambda: [list(jieba_words.__wrapped__(text)) for text in texts])
    different = sum(one != other for one, other in zip(wanted, got))
    size = sum(map(len, texts))
    print(f"segmentation: {len(texts)} texts, {size} characters, {different} differ from jieba")
    print(f"  M characters/s: jieba {size / slow / 1e6:.2f}, here {size / fast / 1e6:.2f} ({slow / fast:.0f}x)")
    if different:
        raise SystemExit("The segmentation differs.")


def compare_pairs(pairs: list[tuple[str, str]], oracle_pairs: int) -> None:
    """Prints pairs a second of both, and that no digit differs."""
    score(["热身 warm-up"], ["热身 warm up"], LLAMA_FACTORY)
    some = pairs[:oracle_pairs]
    wanted, slow = timed(lambda: [oracles.llama_factory(*pair) for pair in some])
    got, fast = timed(lambda: score([p for p, _ in pairs], [r for _, r in pairs], LLAMA_FACTORY))
    different = sum(got[name].per_row[i] != row[name] for i, row in enumerate(wanted) for name in LLAMA_FACTORY)
    mean = sum(len(p) + len(r) for p, r in pairs) / 2 / len(pairs)
    here, there = len(pairs) / fast, len(some) / slow
    print(f"LLaMA-Factory's four: mean length {mean:.0f} characters, {different} of {4 * len(some)} digits differ")
    print(f"  pairs/s: LLaMA-Factory {there:.1f}, here {here:.0f}: {here / there:.0f}x (on {len(some)}, {len(pairs)})")
    everything, seconds = timed(lambda: score([p for p, _ in pairs], [r for _, r in pairs]))
    print(f"  all {len(everything)} metrics: {len(pairs) / seconds:.0f} pairs/s")
    if different:
        raise SystemExit("Digits differ.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", type=Path)
    parser.add_argument("--pairs", type=int, default=2000)
    parser.add_argument("--oracle-pairs", type=int, default=500)
    parser.add_argument("--segment", type=int, default=20_000)
    given = parser.parse_args()
    random_source = random.Random(1)
    texts = all_texts(given.data, random_source)
    oracles.words("热身")
    compare_segmentation(texts[: given.segment])
    compare_pairs(edited_pairs(texts, given.pairs, random_source), given.oracle_pairs)


if __name__ == "__main__":
    main()
