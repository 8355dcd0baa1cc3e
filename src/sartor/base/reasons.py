"""Why a row was skipped, noted or flagged: code → reason and fix, as messages with named placeholders."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from sartor.base.i18n import Text


class Reason(NamedTuple):
    """The messages of one code."""

    reason: str
    fix: str = ""


REASONS: dict[str, Reason] = {
    "answer-missing": Reason(
        "The row has no answer ({field} is empty or missing).",
        "Fill in {field}, or delete the row.",
    ),
    "no-label": Reason(
        "The row has nothing to learn (no answer, or every answer is marked as not to be learned).",
        "Add an answer, or remove `loss: false`; with mask_history only the last answer counts.",
    ),
    "not-renderable": Reason(
        "The template {template} cannot render the row: {reason}",
        "Change the order or the roles of its messages, or choose another template.",
    ),
    "overlong": Reason(
        "The row has {tokens} tokens; cutoff_len is {cutoff}.",
        "Raise cutoff_len, shorten the row, or write overlong: truncate (its end is then cut and no end "
        "token learned).",
    ),
    "overlong-prompt": Reason(
        "The row's prompt alone fills cutoff_len ({cutoff}) of its {tokens} tokens; nothing to learn is left.",
        "Raise cutoff_len, or shorten the prompt.",
    ),
    "control-text": Reason(
        "The row's text cannot be kept apart from control tokens: {reason}.",
        "Take the control token's text out of the row, or use a model with another tokenizer.",
    ),
    "reasoning-dropped": Reason(
        "Reasoning in the answers is left out: enable_thinking is false, or the template {template} removes it.",
        "To learn the reasoning too, leave enable_thinking out and choose a template that renders it (qwen3).",
    ),
    "reasoning-as-text": Reason(
        "The template {template} renders no reasoning: `<think>` blocks stay in the answers as ordinary text.",
        "Choose a template that renders reasoning (qwen3) to have it learned as reasoning.",
    ),
    "not-text": Reason(
        "The row holds {character}, half of a character, which no text can hold.",
        "The file was cut or decoded wrongly there; mend or delete the character.",
    ),
    "prompt-differs": Reason(
        "The template {template} begins an answer otherwise in training than in its generation prompt.",
        "What both have in common counts as the prompt; choose another template if that is not wanted.",
    ),
    "show-tokens": Reason(
        "{id} · template {template} · {tokens} tokens, {learned} of them learned ({share})",
    ),
    "row-broken": Reason(
        "The row cannot be read ({reason}).",
        "Mend the row, or delete it.",
    ),
    "row-not-object": Reason(
        "The row is a {kind}, not an object with named fields.",
        'Write {"…": "…"} for each row.',
    ),
    "prompt-missing": Reason(
        "The row has no question ({field} is empty or missing).",
        "Fill in {field}, or delete the row.",
    ),
    "broken-unicode": Reason(
        "{field} holds half of a character (a lone surrogate).",
        "Write the character again.",
    ),
    "tools-invalid": Reason(
        "{field} is no list of tools ({reason}).",
        "Write JSON, or leave it empty for none.",
    ),
    "same-answers": Reason(
        "The chosen and the rejected answer are the same.",
        "Give two different answers, or delete the row.",
    ),
    "kto-tag-invalid": Reason(
        "{field} is {value!r}, not true or false.",
        "Write true or false.",
    ),
    "history-malformed": Reason(
        "{field} is no list of [question, answer] pairs.",
        'Write [["…", "…"], …].',
    ),
    "messages-missing": Reason(
        "The row has no conversation ({field} is no list of turns, or is empty).",
        "Write a list of turns, or delete the row.",
    ),
    "no-answer-turn": Reason(
        "No turn of {field} is an answer to learn from.",
        "Add an answer, or delete the row.",
    ),
    "turn-malformed": Reason(
        "Turn {turn} has no {role_tag}.",
        "Each turn needs {role_tag} and {content_tag}; or set tags in dataset_info.json.",
    ),
    "turn-empty": Reason(
        "Turn {turn} ({role}) is empty.",
        "Fill it in, or delete it.",
    ),
    "role-unknown": Reason(
        "Turn {turn} has the unknown role {role!r}.",
        "Use the roles of the entry's tags, or set tags.",
    ),
    "call-invalid": Reason(
        "The function call in turn {turn} is no JSON with name and arguments ({reason}).",
        'Write {"name": "…", "arguments": {…}}.',
    ),
    "loss-invalid": Reason(
        "`loss` of turn {turn} is not true or false.",
        "Write true or false without quotes.",
    ),
    "blank-as-none": Reason(
        "{field} holds blanks only and is read as none.",
    ),
    "number-as-text": Reason(
        "{field} holds numbers; they are read as their text.",
    ),
    "streamed": Reason(
        "This is a stream: the counts are those of its first {rows} rows.",
    ),
    "column-absent": Reason(
        "No row has the column {column!r} (columns.{field}); it is read as none.",
    ),
    "column-unmapped": Reason(
        "The column {column!r} is there and not used.",
        'To use it add "{column}": "{column}" to columns.',
    ),
    "default-column": Reason(
        "The column {column!r} is used for {field} by default, though columns does not list it.",
    ),
    "cell-not-text": Reason(
        "{field} holds a {kind}, not text.",
        "Write text there.",
    ),
    "check-head": Reason(
        "{dataset}: {rows} rows checked",
    ),
    "check-clean": Reason(
        "Nothing found.",
    ),
    "check-lengths": Reason(
        "tokens a row: half at most {tokens_p50}, 90 % at most {tokens_p90}, 99 % at most {tokens_p99}, "
        "longest {tokens_max}; cutoff_len {cutoff_len}, {overlong} rows longer",
    ),
    "check-steps": Reason(
        "{rows_learned} rows to learn, {rows_held_out} held out; batch {batch}, {steps_each_epoch} optimizer "
        "steps an epoch, {steps} in all",
    ),
    "duplicate": Reason(
        "The row equals {other}.",
        "Delete one of them, unless it is meant to count twice.",
    ),
    "near-duplicate": Reason(
        "The row is nearly {other} (similarity {similarity}).",
        "Keep the better one, unless the difference matters.",
    ),
    "leak": Reason(
        "A held-out row and {other}, which is learned, are nearly the same (similarity {similarity}).",
        "Delete one of them, or split by section; scores on such rows measure memory.",
    ),
    "answers-differ": Reason(
        "The same question stands in {other} with another answer.",
        "Keep one answer, or make the questions tell the difference.",
    ),
    "language-mix": Reason(
        "The rows are in several writings: {shares}.",
        "If that is not meant, look at the rows of the rare ones.",
    ),
    "language-stray": Reason(
        "The row is in {script}; the data is mostly in {main}.",
        "Delete or translate it, if it is a stray.",
    ),
    "control-token-text": Reason(
        "The text holds {token}, a control token's string; it is trained as ordinary text.",
        "Delete it, if it is left over from another template.",
    ),
    "html-residue": Reason(
        "The text holds markup: {found}",
        "Strip tags and entities, or the model will write them.",
    ),
    "mojibake": Reason(
        "The text was decoded wrongly: {found} (meant: {meant}).",
        "Import the file again with its right encoding (--encoding).",
    ),
    "personal-email": Reason(
        "The text holds an e-mail address: {found}",
        "Replace it by a placeholder, if it belongs to a person.",
    ),
    "personal-phone": Reason(
        "The text holds a telephone number: {found}",
        "Replace it by a placeholder, if it belongs to a person.",
    ),
    "personal-id": Reason(
        "The text holds an identity number: {found}",
        "Replace it by a placeholder.",
    ),
    "answer-cut": Reason(
        "The answer seems to stop in the middle of a sentence: …{end}",
        "Finish or delete it; the model learns to stop there.",
    ),
    "rows-overlong": Reason(
        "{count} rows are longer than cutoff_len {cutoff}.",
        "cutoff_len={most} holds 99 % of all rows, cutoff_len={every} all of them.",
    ),
    "tiny-set": Reason(
        "There are only {rows} rows to learn.",
        "They teach a manner or a few facts. Vary the questions to each fact, or make more (sartor generate).",
    ),
    "few-steps": Reason(
        "These settings give {steps} optimizer steps (batch {batch}): little will be learned.",
        "Write per_device_train_batch_size × gradient_accumulation_steps = {smaller} and "
        "num_train_epochs={epochs}, and watch the held-out loss.",
    ),
    "few-held-out": Reason(
        "Only {rows} rows are held out: only very large differences can be shown.",
        "Raise val_size, or name an eval_dataset.",
    ),
    "mended-bom": Reason(
        "{count} byte order marks removed.",
    ),
    "mended-blank": Reason(
        "{count} blank system or tools fields removed.",
    ),
    "mended-role": Reason(
        "{count} role words replaced by the dataset's own.",
    ),
    "mended-number": Reason(
        "{count} numbers written as text.",
    ),
    "mended-space": Reason(
        "{count} texts trimmed at their end.",
    ),
}


def register(reasons: Mapping[str, Reason]) -> None:
    """Add a plug-in's codes. A code that exists already keeps its messages."""
    for code, reason in reasons.items():
        REASONS.setdefault(code, reason)


def reason_of(code: str, params: Mapping[str, object]) -> Text:
    """Why. Raises: KeyError for a code that nobody registered."""
    return Text(REASONS[code].reason, params)


def fix_of(code: str, params: Mapping[str, object]) -> Text:
    """What to do; empty where there is nothing to do. Raises: KeyError for a code that nobody registered."""
    return Text(REASONS[code].fix, params)
