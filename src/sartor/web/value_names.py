"""Display names of the values that several pages show: states, outcomes, fields of a row, parts of a run."""

from __future__ import annotations

from sartor.base.i18n import tr

STATES = {
    "new": tr("new"),
    "waiting": tr("waiting"),
    "running": tr("running"),
    "interrupted": tr("stopped"),
    "stopped": tr("stopped"),
    "failed": tr("failed"),
    "finished": tr("finished"),
    "done": tr("done"),
    "damaged": tr("damaged"),
}
"""Of a run or a job."""
OUTCOMES = {
    "better": tr("better"),
    "worse": tr("worse"),
    "same": tr("no difference"),
    "not_proven": tr("not proven"),
}
"""Of a verdict."""
FIELDS = {
    "question": tr("Question"),
    "answer": tr("Answer"),
    "input": tr("Additional input"),
    "system": tr("System prompt"),
    "chosen": tr("Better answer"),
    "rejected": tr("Worse answer"),
    "kto_tag": tr("Rating"),
    "tools": tr("Tools"),
    "text": tr("Document"),
}
"""Of a row."""
PARTS = {"base": tr("Base"), "tuned": tr("Tuned")}
"""Of a run: the model before and after training."""
ENDPOINT_FIELDS = {"url": tr("Address"), "model": tr("Model"), "key_env": tr("Environment variable of the API key")}
