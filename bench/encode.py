"""`sartor.encode`, row by row: the first call, which analyzes the template, and rows per second afterwards; one run.

    python bench/encode.py [--rows 5000] [--model smollm2-135m]

Target: at least 1,000 rows/s one by one. `Encoder.encode_all` on the same rows is the upper bound.
"""

from __future__ import annotations

import argparse
import time

from sartor.base.settings import PromptSettings
from sartor.base.types import Demonstration, Message, Origin
from sartor.model.load import load_tokenizer
from sartor.prompt.encode import Encoder
from sartor.prompt.encode_messages import encode
from sartor.prompt.template import Template


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=5000)
    parser.add_argument("--model", default="smollm2-135m")
    options = parser.parse_args()
    tokenizer = load_tokenizer(options.model)
    rows = [
        (
            Message("user", f"Tell me story number {n}."),
            Message("assistant", "Once upon a time there was a tailor. " * 5),
        )
        for n in range(options.rows)
    ]
    begin = time.perf_counter()
    encode(rows[0], tokenizer, template="chatml")
    print(f"first call      {time.perf_counter() - begin:8.3f} s", flush=True)
    begin = time.perf_counter()
    for row in rows:
        encode(row, tokenizer, template="chatml")
    print(f"one by one      {len(rows) / (time.perf_counter() - begin):8,.0f} rows/s (target 1,000)", flush=True)
    template = Template.from_tokenizer(tokenizer, "chatml")
    begin = time.perf_counter()
    for row in rows:
        encode(row, tokenizer, template=template)
    print(f"with a Template {len(rows) / (time.perf_counter() - begin):8,.0f} rows/s", flush=True)
    examples = [Demonstration(row, Origin("made", "made.json", n)) for n, row in enumerate(rows, 1)]
    encoder = Encoder(tokenizer, template, PromptSettings())
    begin = time.perf_counter()
    encoder.encode_all(examples)
    print(f"encode_all      {len(rows) / (time.perf_counter() - begin):8,.0f} rows/s", flush=True)


if __name__ == "__main__":
    main()
