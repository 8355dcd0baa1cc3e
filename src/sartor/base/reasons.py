"""Codes of skipped rows, notes and findings → the message that says why, and the one that says what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple, TypeAlias

from sartor.base.i18n import Text


class Reason(NamedTuple):
    """The messages of one code, as templates with named placeholders; `fix` is empty where nothing needs to be done."""

    reason: str
    fix: str = ""


REASONS: dict[str, Reason] = {
    "answer-missing": Reason(
        "The row has no answer ({field} is empty or missing).",
        "Fill in {field}, or delete the row.",
    ),
    "no-label": Reason(
        "The row has nothing to train on: no answer, or every answer has `loss: false`.",
        "Add an answer, or remove `loss: false`; with mask_history only the last answer is trained on.",
    ),
    "not-renderable": Reason(
        "The template ({template}) cannot render the row: {reason}",
        "Change the order or the roles of its messages, or choose another template.",
    ),
    "overlong": Reason(
        "The row has {tokens} tokens; cutoff_len is {cutoff}.",
        "Raise cutoff_len, shorten the row, or set overlong: truncate (the row then loses its end, and no end token "
        "is trained on).",
    ),
    "overlong-prompt": Reason(
        "The row has {tokens} tokens, and its prompt alone fills cutoff_len ({cutoff}); nothing is left to train on.",
        "Raise cutoff_len, or shorten the prompt.",
    ),
    "control-text": Reason(
        "Text of the row cannot be told apart from control tokens: {reason}.",
        "Remove the control token's text from the row, or use a model with another tokenizer.",
    ),
    "reasoning-dropped": Reason(
        "Reasoning in the answers is dropped: enable_thinking is false, or the template ({template}) turns reasoning "
        "off unless enable_thinking is true.",
        "To train on the reasoning, set enable_thinking: true.",
    ),
    "reasoning-as-text": Reason(
        "The template ({template}) does not render reasoning: `<think>` blocks stay in the answers as ordinary text.",
        "To train on it as reasoning, choose a template that renders it (qwen3).",
    ),
    "reasoning-left-out": Reason(
        "The template ({template}) leaves the reasoning of some answers out where they are trained on.",
        "With history: split, the reasoning of earlier answers is trained on wherever the template renders it at all.",
    ),
    "reasoning-empty": Reason(
        "The generation prompt of the template ({template}) opens a reasoning block; answers without reasoning close "
        "it at once.",
        "Add reasoning to the answers, or set enable_thinking: false if the template knows it.",
    ),
    "history-split": Reason(
        "{rows} conversations become {sequences} sequences: the template ({template}) renders earlier answers "
        "differently once another question follows, so each is trained on after the prompt that inference sees. "
        "{repeated} tokens ({share}) are prompts that occur again in a later sequence.",
        "history: last trains on the last answers only, history: as_rendered on whole conversations as rendered.",
    ),
    "overlong-part": Reason(
        "{sequences} sequences of {rows} conversations are longer than cutoff_len and not trained on; the other "
        "answers of these rows are ({names}).",
        "Raise cutoff_len, or set overlong: truncate.",
    ),
    "not-text": Reason(
        "The row contains {character}, half of a surrogate pair, which is not valid Unicode text.",
        "The file was cut or decoded wrongly there; fix or delete the character.",
    ),
    "prompt-differs": Reason(
        "The template ({template}) starts an answer differently in training than in its generation prompt.",
        "Only what both have in common counts as the prompt; if that is not intended, choose another template.",
    ),
    "end-added": Reason(
        "The template ({template}) ends no last answer; {end} is trained as its end, as the model's own files declare.",
    ),
    "show-tokens": Reason(
        "{id} · template: {template} · {tokens} tokens, {learned} of them trained on ({share})",
    ),
    "row-broken": Reason(
        "The row cannot be read ({reason}).",
        "Fix the row, or delete it.",
    ),
    "row-not-object": Reason(
        "The row is of type {kind}, not an object with named fields.",
        'Write {"…": "…"} for each row.',
    ),
    "prompt-missing": Reason(
        "The row has no question ({field} is empty or missing).",
        "Fill in {field}, or delete the row.",
    ),
    "broken-unicode": Reason(
        "{field} contains half of a surrogate pair, which is not valid Unicode text.",
        "Write the character again.",
    ),
    "tools-invalid": Reason(
        "{field} is not a list of tools ({reason}).",
        "Write JSON, or leave it empty.",
    ),
    "same-answers": Reason(
        "The chosen and the rejected answer are identical.",
        "Give two different answers, or delete the row.",
    ),
    "kto-tag-invalid": Reason(
        "{field} is {value!r}, not true or false.",
        "Write true or false.",
    ),
    "messages-missing": Reason(
        "The row has no conversation ({field} is empty or not a list of turns).",
        "Write a list of turns, or delete the row.",
    ),
    "no-answer-turn": Reason(
        "No turn of {field} is an answer to train on.",
        "Add an answer, or delete the row.",
    ),
    "turn-malformed": Reason(
        "Turn {turn} has no {role_tag}.",
        "Each turn needs {role_tag} and {content_tag}; or set `tags` in dataset_info.json.",
    ),
    "turn-empty": Reason(
        "Turn {turn} ({role}) is empty.",
        "Fill it in, or delete it.",
    ),
    "role-unknown": Reason(
        "Turn {turn} has the unknown role {role!r}.",
        "Use the roles in the entry's `tags`, or set `tags`.",
    ),
    "call-invalid": Reason(
        "The function call in turn {turn} is not valid JSON with name and arguments ({reason}).",
        'Write {"name": "…", "arguments": {…}}.',
    ),
    "loss-invalid": Reason(
        "`loss` of turn {turn} is not true or false.",
        "Write true or false without quotes.",
    ),
    "blank-as-none": Reason(
        "{field} contains only white space and is treated as missing.",
    ),
    "number-as-text": Reason(
        "{field} contains numbers; they are read as text.",
    ),
    "rows-sft": Reason("Questions with their answers, or conversations (stage sft)."),
    "rows-dpo": Reason("Questions with a chosen and a rejected answer each (stage dpo)."),
    "rows-kto": Reason("Questions with an answer that is rated good or bad (stage kto)."),
    "rows-pt": Reason(
        "Documents without questions and answers: the model learns to continue them (stage pt).",
        "For questions and answers about a document, generate them: `sartor generate FILE`, or *Questions from "
        "documents* on the page.",
    ),
    "refused-at-import": Reason(
        "Of {read} rows of {file}, {kept} were kept at import and {refused} refused ({repaired} repaired since).",
        "Each refused row is in {record}, with its reason and its text.",
    ),
    "eval-trained": Reason(
        "{rows} rows of eval_dataset are trained on too: they are not held out, and their loss measures memorization.",
        "Choose an eval_dataset without them, or hold rows out with val_size.",
    ),
    "system-unused": Reason(
        "{field} is not used in rows whose conversation begins with a system turn of its own.",
    ),
    "streamed": Reason(
        "The data is streamed: the counts are those of its first {rows} rows.",
    ),
    "column-absent": Reason(
        "No row has the column {column!r} (columns.{field}); it is treated as missing.",
    ),
    "column-unmapped": Reason(
        "The column {column!r} exists but is not used.",
        'To use it, add "{column}": "{column}" to columns.',
    ),
    "default-column": Reason(
        "The column {column!r} is used for {field} by default, although `columns` does not list it.",
    ),
    "cell-not-text": Reason(
        "{field} is of type {kind}, not text.",
        "Write text there.",
    ),
}
"""The codes of the data and prompt layers. Those of formats and of check rules are in their own files."""

Provider: TypeAlias = Callable[[], Iterable[Mapping[str, Reason]]]
_providers: list[Provider] = []


def add_reasons(provider: Provider) -> None:
    """Have `provider` asked for the codes of plug-ins, once a code is needed that is not in `REASONS`.

    An extension point calls this when it is imported; its plug-ins are loaded only then. A code that exists already
    keeps its messages.
    """
    _providers.append(provider)


def all_reasons() -> Mapping[str, Reason]:
    """Every code, those of all plug-ins included."""
    for provider in _providers:
        for reasons in provider():
            for code, reason in reasons.items():
                REASONS.setdefault(code, reason)
    return REASONS


def reason_of(code: str, params: Mapping[str, object]) -> Text:
    """Why. Raises: KeyError for an unknown code."""
    return Text(_find(code).reason, params)


def fix_of(code: str, params: Mapping[str, object]) -> Text:
    """What to do; empty where nothing needs to be done. Raises: KeyError for an unknown code."""
    return Text(_find(code).fix, params)


def _find(code: str) -> Reason:
    return REASONS[code] if code in REASONS else all_reasons()[code]
