"""A byte-level tokenizer with whatever control tokens a template needs."""

from __future__ import annotations

import functools
from typing import Any

BASE = 256
"""The id of the first control token: before it stand the 256 bytes."""


@functools.cache
def byte_tokenizer(control: tuple[str, ...] = (), template: str | None = None, eos: str | None = "</s>") -> Any:
    """256 byte tokens, then `<s>`, `</s>`, `<think>`, `</think>` (the last two added, not special), then `control`."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token=eos)
    fast.add_tokens(["<think>", "</think>"])
    fast.add_tokens([token for token in control if token not in ("bos_token", "eos_token")], special_tokens=True)
    fast.chat_template = template
    return fast


def byte_ids(text: str) -> list[int]:
    """The ids of a text without control tokens, by hand."""
    from tokenizers import pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    byte_of = _bytes_to_unicode()
    return [alphabet.index(byte_of[byte]) for byte in text.encode("utf-8")]


def _bytes_to_unicode() -> dict[int, str]:
    """GPT-2's visible character for each byte."""
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in visible]
    return {**{byte: chr(byte) for byte in visible}, **{byte: chr(256 + n) for n, byte in enumerate(hidden)}}
