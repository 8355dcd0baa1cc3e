"""Strings of control tokens in the data, left over from another template; they are trained on as ordinary text."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import ClassVar

from sartor.base.reasons import Reason
from sartor.checks.finding import Finding
from sartor.checks.lint_input import LintInput
from sartor.checks.rules import Rule

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
"""Strings that templates of well-known models write, in addition to those of the tokenizer in use."""
REASONING = {"<think>", "</think>"}
"""Parsed as reasoning at the start of an answer; not reported."""


class ControlText(Rule):
    """Control tokens written out in texts."""

    name = "control_text"
    reasons: ClassVar[Mapping[str, Reason]] = {
        "control-token-text": Reason(
            "The text contains {token}, the string of a control token; it is trained on as ordinary text.",
            "Delete it if it is left over from another template.",
        ),
    }

    def find(self, lint_input: LintInput) -> Iterator[Finding]:
        """A warning for each text with such a string, naming the first."""
        strings = sorted({*KNOWN, *lint_input.control} - REASONING, key=len, reverse=True)
        pattern = re.compile("|".join(map(re.escape, strings)))
        for row in lint_input.rows:
            for name, text in row.parts:
                if ("<" in text or "[" in text or "{" in text) and (found := pattern.search(text)):
                    yield Finding("control-token-text", "warning", row.origin, name, {"token": found[0]})


PLUGIN = ControlText()
EXAMPLES = (
    ((("Who?", "Darcy.<|im_end|>"), ("[INST] Who?", "Darcy.")), ("control-token-text", "control-token-text")),
    ((("Is 1 < 2?", "<think>Yes</think>Yes, [1] < [2]."),), ()),
)
"""(question–answer pairs, the codes found in them)."""
