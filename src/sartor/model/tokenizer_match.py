"""Whether a tokenizer belongs to a model and to an adapter: same ids, same tokens; knows no texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sartor.base.errors import ModelError


def check_tokenizer(tokenizer: Any, model: Any, adapter: str | Path | None = None) -> None:
    """Raises: ModelError when the tokenizer writes ids that the model has no row for, or the adapter was trained with
    other tokens (its folder's tokenizer.json tells; tokens added behind the model's are no difference).
    """
    backend = tokenizer.backend_tokenizer
    highest, rows = max(backend.get_vocab().values()), model.get_input_embeddings().weight.shape[0]
    where = str(tokenizer.name_or_path)
    if highest >= rows:
        raise ModelError(
            f"The tokenizer does not match the model: its ids go to {highest}, the model has {rows}.",
            where,
            "Put the model's own tokenizer files into its folder.",
        )
    file = Path(adapter) / "tokenizer.json" if adapter is not None else None
    if file is None or not file.is_file():
        return
    from tokenizers import Tokenizer

    try:
        theirs = Tokenizer.from_file(str(file)).get_vocab()
    except Exception as error:  # tokenizers raises a bare Exception
        raise ModelError(f"The tokenizer is damaged: {error}.", str(file), "Copy the adapter again.") from None
    ours = backend.get_vocab()
    known = {number: token for token, number in ours.items()}
    for token, number in theirs.items():
        if known.get(number, token) != token:
            raise ModelError(
                f"The adapter was trained with another tokenizer: id {number} is {token!r} there, "
                f"{known[number]!r} here.",
                str(adapter),
                "Use the base model that the adapter was trained on.",
            )
