"""A fast tokenizer as the arrays of a GGUF file: tokens, types, scores, merges."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import gguf

from sartor.base.errors import ExportError
from sartor.base.i18n import tr

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_TAIL = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
PRE_TOKENIZERS: Mapping[tuple[str, ...], str] = {
    ("bytes",): "gpt-2",
    ("digits", "bytes"): "smollm",
    ("bytes", "digits"): "smollm",
    (_CONTRACTIONS + r"\p{N}" + _TAIL,): "qwen2",
    (_CONTRACTIONS + r"\p{N}{1,3}" + _TAIL,): "llama-bpe",
}
"""How text is split before merging → llama.cpp's name for it (its `llama_vocab_pre_type`)."""
NO_SCORE = -1000.0


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What llama.cpp needs to tokenize as the tokenizer does. `pre` and `merges` are for the model "gpt2" only."""

    model: str
    pre: str
    tokens: tuple[str, ...]
    types: tuple[int, ...]
    scores: tuple[float, ...]
    merges: tuple[str, ...]
    adds_bos: bool
    adds_space: bool

    @classmethod
    def of(cls, tokenizer: Any, size: int) -> Vocabulary:
        """Read a fast tokenizer; unused ids up to `size` (rows of the embedding) are filled.

        Raises: ExportError for a kind of tokenizer that llama.cpp does not have.
        """
        whole = json.loads(tokenizer.backend_tokenizer.to_str())
        model = whole["model"]
        if model["type"] != "BPE":
            raise ExportError(
                "GGUF export does not support tokenizers of type {type}.", "tokenizer", FIX, type=model["type"]
            )
        merges = [tuple(merge.split(" ", 1)) if isinstance(merge, str) else tuple(merge) for merge in model["merges"]]
        texts, added = _texts(tokenizer, size), {token["id"]: token for token in whole["added_tokens"]}
        spaced = bool(model.get("byte_fallback"))
        if not spaced and not _byte_level(whole["pre_tokenizer"]):
            raise ExportError("The tokenizer is neither byte-level nor SentencePiece's.", "tokenizer", FIX)
        ranks = _ranks(merges)
        tokens = [_plain(text, added.get(id), spaced) for id, text in enumerate(texts)]
        first = tokenizer("a").input_ids[0]
        return cls(
            model="llama" if spaced else "gpt2",
            pre="default" if spaced else _pre_tokenizer(whole["pre_tokenizer"]),
            tokens=tuple(tokens),
            types=tuple(_type(text, added.get(id), spaced) for id, text in enumerate(texts)),
            scores=tuple(NO_SCORE if id in added else -float(ranks.get(text or "", 0)) for id, text in enumerate(texts))
            if spaced
            else (),
            merges=() if spaced else tuple(f"{left} {right}" for left, right in merges),
            adds_bos=tokenizer.bos_token_id is not None and first == tokenizer.bos_token_id,
            adds_space=spaced and _prepends(whole),
        )

    def write(self, writer: gguf.GGUFWriter, tokenizer: Any, stop_ids: tuple[int, ...], template: str) -> None:
        """All `tokenizer.*` keys; the first stop id ends a text, the second a turn."""
        writer.add_tokenizer_model(self.model)
        writer.add_tokenizer_pre(self.pre)
        writer.add_token_list(list(self.tokens))
        writer.add_token_types(list(self.types))
        if self.scores:
            writer.add_token_scores(list(self.scores))
        if self.model == "gpt2":
            writer.add_token_merges(list(self.merges) or [f"{self.tokens[0]} {self.tokens[0]}"])
        writer.add_eos_token_id(stop_ids[0])
        if len(stop_ids) > 1:
            writer.add_eot_token_id(stop_ids[1])
        known = {
            writer.add_bos_token_id: tokenizer.bos_token_id,
            writer.add_unk_token_id: tokenizer.unk_token_id,
            writer.add_pad_token_id: tokenizer.pad_token_id,
        }
        for add, id in known.items():
            if id is not None:
                add(id)
        writer.add_add_bos_token(self.adds_bos)
        writer.add_add_eos_token(False)
        if self.model == "llama":
            writer.add_add_space_prefix(self.adds_space)
        writer.add_chat_template(template)


FIX = tr("Use --to merged: transformers, vLLM and others read it.")


def _texts(tokenizer: Any, size: int) -> list[str | None]:
    texts: list[str | None] = [None] * size
    for text, id in tokenizer.get_vocab().items():
        if id >= size:
            raise ExportError(
                "Token {id} has no row in the model's embedding ({size} rows).", repr(text), FIX, id=id, size=size
            )
        texts[id] = text
    return texts


def _plain(text: str | None, added: Mapping[str, Any] | None, spaced: bool) -> str:
    """The token as llama.cpp matches it; SentencePiece-style added tokens are matched with real spaces."""
    if text is None:
        return ""
    return text.replace("▁", " ") if added and spaced and not added["special"] else text


def _type(text: str | None, added: Mapping[str, Any] | None, spaced: bool) -> int:
    kinds = gguf.TokenType
    if text is None:
        return int(kinds.UNUSED)
    if added:
        if added["content"] == "<unk>":
            return int(kinds.UNKNOWN)
        return int(kinds.CONTROL if added["special"] else kinds.USER_DEFINED)
    if spaced and len(text) == 6 and text.startswith("<0x"):
        return int(kinds.BYTE)
    return int(kinds.NORMAL)


def _ranks(merges: list[tuple[str, ...]]) -> dict[str, int]:
    """Piece → the rank of the first merge that makes it: SentencePiece's negative score."""
    ranks: dict[str, int] = {}
    for left, right in merges:
        ranks.setdefault(left + right, len(ranks) + 1)
    return ranks


def _steps(part: Mapping[str, Any] | None) -> Iterator[Mapping[str, Any]]:
    if part is None:
        return
    for inner in (*part.get("pretokenizers", ()), *part.get("normalizers", ())):
        yield from _steps(inner)
    if part["type"] != "Sequence":
        yield part


def _byte_level(pre_tokenizer: Mapping[str, Any] | None) -> bool:
    return any(step["type"] == "ByteLevel" for step in _steps(pre_tokenizer))


def _pre_tokenizer(part: Mapping[str, Any] | None) -> str:
    """llama.cpp's name for the way text is split. Raises: ExportError when it has none."""
    steps: list[str] = []
    for step in _steps(part):
        if step["type"] == "Split":
            steps.append(step["pattern"].get("Regex") or step["pattern"].get("String"))
        elif step["type"] == "Digits" and step["individual_digits"]:
            steps.append("digits")
        elif step["type"] == "ByteLevel" and step.get("use_regex", True):
            steps.append("bytes")
    if (name := PRE_TOKENIZERS.get(tuple(steps))) is None:
        raise ExportError("GGUF export does not support how this tokenizer splits text.", f"{steps}", FIX)
    return name


def _prepends(whole: Mapping[str, Any]) -> bool:
    """Whether a space is put before a text (Llama 2 does, Gemma does not)."""
    parts = (*_steps(whole["normalizer"]), *_steps(whole["pre_tokenizer"]))
    return any(p["type"] == "Prepend" or p.get("prepend_scheme") in ("first", "always") for p in parts)
