"""Control tokens' strings in the data: residue of another template; they are trained as ordinary text."""

from __future__ import annotations

import re
from collections.abc import Iterator

from sartor.checks.finding import Finding
from sartor.checks.lint_input import LintInput

KNOWN = (
    "<|im_start|>",
    "<|im_end|>",
    "<|endoftext|>",
    "<|eot_id|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|user|>",
    "<|assistant|>",
    "<|system|>",
    "<|end|>",
    "[INST]",
    "[/INST]",
    "<<SYS>>",
    "<start_of_turn>",
    "<end_of_turn>",
    "<s>",
    "</s>",
    "<bos>",
    "<eos>",
    "<pad>",
    "<unk>",
    "[gMASK]",
    "<｜User｜>",
    "<｜Assistant｜>",
    "<｜end▁of▁sentence｜>",
    "{{content}}",
    "{{query}}",
)
"""Strings that templates of well-known models write, besides those of the tokenizer in use."""
REASONING = {"<think>", "</think>"}
"""Parsed as reasoning where they lead an answer; not reported."""


def find(subject: LintInput) -> Iterator[Finding]:
    """One warning for each text with such a string, naming the first."""
    strings = sorted({*KNOWN, *subject.control} - REASONING, key=len, reverse=True)
    pattern = re.compile("|".join(map(re.escape, strings)))
    for row in subject.rows:
        for name, text in row.parts:
            if ("<" in text or "[" in text or "{" in text) and (found := pattern.search(text)):
                yield Finding("control-token-text", "warning", row.origin, name, {"token": found[0]})


EXAMPLES = (
    ((("Who?", "Darcy.<|im_end|>"), ("[INST] Who?", "Darcy.")), ("control-token-text", "control-token-text")),
    ((("Is 1 < 2?", "<think>Yes</think>Yes, [1] < [2]."),), ()),
)
