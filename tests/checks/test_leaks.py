"""Leaks are found across the split, once for each held-out row, and not because of a shared system prompt."""

from __future__ import annotations

from sartor.base.types import Demonstration, Document, Message, Origin
from sartor.checks.leaks import find_leaks

SYSTEM = "You are a careful assistant of the village library, and answer every question in one short sentence. " * 3


def row(number: int, question: str, answer: str) -> Demonstration:
    turns = (Message("system", SYSTEM), Message("user", question), Message("assistant", answer))
    return Demonstration(turns, Origin("book", "book.json", number))


def test_the_most_similar_training_row_is_named_once() -> None:
    known = row(1, "Who wrote the novel Pride and Prejudice?", "Jane Austen wrote it in 1813.")
    train = [known, known, row(2, "What is a barouche?", "A carriage with four wheels.")]
    held_out = [
        row(3, "Who wrote the novel Pride and Prejudice?", "Jane  Austen wrote it in 1813."),
        row(4, "How deep is the river Tay?", "Nobody has measured it."),
    ]
    (leak,) = find_leaks(train, held_out)
    assert (leak.held_out, leak.train, leak.similarity) == ("book:3", "book:1", 1.0)
    assert "careful assistant" not in leak.text


def test_documents_leak_too() -> None:
    text = "The bridge over the Tay was opened in 1887 after five years of work."
    train, held_out = (Document(text, Origin("book", "book.txt", number)) for number in (1, 2))
    assert [leak.held_out for leak in find_leaks([train], [held_out])] == ["book:2"]


def test_a_copy_among_the_held_out_rows_hides_no_leak() -> None:
    """Each held-out row is compared with the training rows alone, however like another held-out row it is."""
    train = [row(1, "Who wrote the novel Pride and Prejudice?", "Jane Austen wrote it in 1813.")]
    question, answer = "Who wrote the novel Pride and Prejudice?", "Jane Austen wrote it in 1814."
    found = find_leaks(train, [row(2, question, answer), row(3, question, answer)])
    assert [(leak.held_out, leak.train) for leak in found] == [("book:2", "book:1"), ("book:3", "book:1")]
