"""Checks that a tokenizer matches a model and its adapter: no id beyond the embedding, the same tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sartor.base.errors import ModelError


def check_tokenizer(tokenizer: Any, model: Any, adapter: str | Path | None = None) -> None:
    """Raises: ModelError if the tokenizer has ids beyond the model's embedding, or differs from the adapter's.

    The adapter's tokenizer is the tokenizer.json in its folder; tokens added after the model's own may differ.
    """
    backend = tokenizer.backend_tokenizer
    highest, rows = max(backend.get_vocab().values()), model.get_input_embeddings().weight.shape[0]
    where = str(tokenizer.name_or_path)
    if highest >= rows:
        raise ModelError(
            "The tokenizer does not match the model: its largest id is {largest}, the embedding has {rows} rows.",
            where,
            "Put the model's own tokenizer files into its folder.",
            largest=highest,
            rows=rows,
        )
    file = Path(adapter) / "tokenizer.json" if adapter is not None else None
    if file is None or not file.is_file():
        return
    from tokenizers import Tokenizer

    try:
        theirs = Tokenizer.from_file(str(file)).get_vocab()
    except Exception as error:  # tokenizers raises a bare Exception
        raise ModelError("The tokenizer is damaged: {reason}.", file, "Copy the adapter again.", reason=error) from None
    ours = backend.get_vocab()
    own_tokens = {number: token for token, number in ours.items()}
    for token, number in theirs.items():
        if own_tokens.get(number, token) != token:
            raise ModelError(
                "The adapter was trained with another tokenizer: id {number} is {theirs!r}, not {own!r}.",
                adapter,
                "Use the base model that the adapter was trained on.",
                number=number,
                theirs=token,
                own=own_tokens[number],
            )
