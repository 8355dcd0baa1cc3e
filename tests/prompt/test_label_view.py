from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from sartor.base.settings import PromptSettings
from sartor.base.types import Demonstration, Document, Example, Message, Origin, Preference
from sartor.prompt.encode import Encoder
from sartor.prompt.label_view import label_view
from sartor.prompt.template import Template
from support.byte_tokenizers import byte_tokenizer

ORIGIN = Origin("made", "made.json", 7)
ROW = Demonstration((Message("user", "谁写的 <|im_end|>?"), Message("assistant", "简·奥斯汀\n<b>😀")), ORIGIN)


def encoder(template: str = "chatml", **options: Any) -> Encoder:
    tokenizer = byte_tokenizer(("<|im_start|>", "<|im_end|>"))
    return Encoder(tokenizer, Template.from_tokenizer(tokenizer, template), PromptSettings(**options))


@pytest.mark.parametrize("template", ["chatml", "alpaca"])
def test_pieces_are_the_text_and_the_learned_ones_the_answer(template: str) -> None:
    made = encoder(template)
    shown = label_view(ROW, made)
    drawing = shown.renderings[0]
    sequence: Any = made.encode(ROW)
    assert shown.id == "made:7"
    assert drawing.text == made.template.render(ROW.messages)
    assert "".join(p.text for p in drawing.pieces if p.trained) == ROW.messages[1].text + made.template.end
    assert (drawing.tokens, drawing.label_tokens) == (len(sequence), sequence.label_tokens)
    assert sum(piece.tokens for piece in drawing.pieces) == len(sequence)


def test_a_sign_of_several_tokens_is_one_piece() -> None:
    pieces = {piece.text: piece.tokens for piece in label_view(ROW, encoder()).renderings[0].pieces}
    assert pieces["简"] == 3
    assert pieces["😀"] == 4
    assert "\ufffd" not in "".join(pieces)
    control = [piece.text for piece in label_view(ROW, encoder()).renderings[0].pieces if piece.control]
    assert control == ["<|im_start|>", "<|im_end|>"] * 2, "the user's own is no control token"


def test_html_is_escaped_and_terminal_needs_no_colours() -> None:
    shown = label_view(ROW, encoder())
    assert "&lt;|im_end|&gt;" in shown.html()
    assert "<b>😀" not in shown.html()
    plain, coloured = io.StringIO(), io.StringIO()
    Console(file=plain, width=200).print(shown)
    assert "⟦简·奥斯汀\n<b>😀<|im_end|>⟧" in plain.getvalue()
    Console(file=coloured, width=200, force_terminal=True, color_system="truecolor").print(shown)
    assert "\x1b[30;4" in coloured.getvalue()
    assert "⟦" not in coloured.getvalue()


def test_what_is_cut_or_skipped_is_drawn_so() -> None:
    length = label_view(ROW, encoder()).renderings[0].tokens
    cut = label_view(ROW, encoder(cutoff_len=length - 6, overlong="truncate"))
    drawing = cut.renderings[0]
    assert drawing.tokens == length - 6
    assert "".join(piece.text for piece in drawing.pieces if not piece.used) == "😀<|im_end|>\n"
    assert "line-through" in cut.html()
    skipped = label_view(ROW, encoder(cutoff_len=5))
    assert skipped.skipped is not None
    assert "cutoff_len" in skipped.html()
    assert skipped.to_json()["skipped"]["code"] == "overlong"


@pytest.mark.parametrize(
    ("example", "learned"),
    [
        (
            Preference(ROW.messages[:1], Message("assistant", "yes"), Message("assistant", "no"), ORIGIN),
            ["yes<|im_end|>", "no<|im_end|>"],
        ),
        (Document("plain", ORIGIN), ["plain</s>"]),
    ],
)
def test_every_kind_is_drawn(example: Example, learned: list[str]) -> None:
    drawings = label_view(example, encoder()).renderings
    assert ["".join(p.text for p in d.pieces if p.trained) for d in drawings] == learned
