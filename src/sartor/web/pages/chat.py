"""The page `/chat`: one or more models answer the same turn in streaming columns, each with its fingerprint."""

from __future__ import annotations

import html
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from fastapi import Request
from nicegui import background_tasks, run, ui

from sartor.base.errors import ConfigError, SartorError
from sartor.base.i18n import tr
from sartor.base.settings import GenerationSettings
from sartor.base.types import Message
from sartor.web import endpoints
from sartor.web.chat_models import ChatModels, Target
from sartor.web.components import button, card, heading, line, page_frame, run_in_thread, show_error, text
from sartor.web.endpoints import Remote
from sartor.web.i18n import Translator
from sartor.web.reader import Reader
from sartor.web.reply import Reply
from sartor.web.value_names import ENDPOINT_FIELDS, PARTS
from sartor.web.workspace import Workspace, visible

EVERY_S = 0.05
MAX_COLUMNS = 4
SAVED = "chat"
"""The dataset that saved turns are added to."""
STOP_REASONS = {
    "stop": tr("ended normally"),
    "length": tr("truncated at max_new_tokens"),
    "cancelled": tr("stopped"),
}
PLACEHOLDERS = {"url": "https://…/v1", "model": "", "key_env": "…_API_KEY"}


def add_to(workspace: Workspace, reader: Reader) -> None:
    models = ChatModels(workspace)

    @ui.page("/chat")
    def page(request: Request, run: str = "") -> None:
        with page_frame(request, "chat") as t:
            heading(
                t("Chat"),
                t("All columns answer the same turn. Each shows the fingerprint of the weights that answered."),
            )
            ChatView(workspace, models, reader, t, run).draw()


class Column:
    """One model's side of the conversation."""

    def __init__(self, chat: ChatView, target: Target) -> None:
        self.chat, self.target = chat, target
        self.turns: list[Message] = []
        self.reply: Reply | None = None
        self.shown: Any = None
        self.remote = Remote()
        self.fingerprint = ""
        """Of the weights that answered last; empty before the first answer and for an endpoint."""

    def draw(self) -> None:
        t = self.chat.t
        self.root = card("chat-col")
        with self.root:
            labels = {place: label(target, t) for place, target in enumerate(self.chat.targets)}
            with line().style("flex-wrap:nowrap"):
                ui.select(
                    labels, value=self.chat.targets.index(self.target), label=t("Model"), on_change=self._choose
                ).props("outlined dense").classes("grow")
                button("×", partial(self.chat.remove, self), "quiet").props(f'aria-label="{t("Remove this column")}"')
            self.address = ui.element("div").classes("flex flex-col gap-2 w-full")
            self.head = ui.element("div").classes("small soft mono")
            self.place = ui.element("div").classes("messages").props("aria-live=polite")
            self._show_hint()
            self.foot = line("spread small soft num")

    def _choose(self, event: Any) -> None:
        self.target = self.chat.targets[event.value]
        self.clear()
        self.address.clear()
        if self.target.remote:
            with self.address:
                self._address()

    def _show_hint(self) -> None:
        with self.place:
            self.hint = text(self.chat.t("No messages yet. Type below, and every column answers."), "soft small")

    def _address(self) -> None:
        """The endpoint's address, and the consent to send messages there."""
        t = self.chat.t
        with ui.element("div").classes("fields"):
            for name, label in ENDPOINT_FIELDS.items():
                value = getattr(self.remote, name)
                box = ui.input(t(label), value=value, placeholder=PLACEHOLDERS[name])
                box.props("outlined dense").on_value_change(partial(self._set_remote, name))
        agreed = ui.checkbox(t("Send what I type here to this address"), value=self.remote.consent).props("dense")
        agreed.on_value_change(partial(self._set_remote, "consent"))

    def _set_remote(self, name: str, event: Any) -> None:
        value: Any = bool(event.value) if name == "consent" else (event.value or "").strip()
        self.remote = replace(self.remote, **{name: value})

    def clear(self) -> None:
        if self.reply:
            self.reply.stop()
        self.turns, self.reply, self.shown, self.fingerprint = [], None, None, ""
        self.place.clear()
        self.foot.clear()
        self.head.clear()
        self._show_hint()

    def ask(self, words: str, generation: GenerationSettings, **options: Any) -> None:
        """Show the turn and queue it; the answer is generated in the background."""
        self.hint.set_visibility(False)
        self.turns = [*self.turns, Message("user", words)]
        system = (Message("system", self.chat.system),) if self.chat.system else ()
        reply = Reply()
        self.reply, self.shown = reply, None
        with self.place:
            text(words, "say user")
            self.box = text("…", "say assistant soft")
        self.foot.clear()
        with self.foot:
            self.status = text(self.chat.t("Generating…"), tag="span")
            button(self.chat.t("Stop"), reply.stop, "quiet danger")
        turns = (*system, *self.turns)
        if self.target.remote:
            reply.began = time.monotonic()
            reply.ticket = background_tasks.create(endpoints.ask(self.remote, turns, generation, reply, **options))
            return
        background_tasks.create(
            run.io_bound(partial(self.chat.models.ask, self.target, turns, generation, reply, **options))
        )

    def tick(self) -> None:
        """Show what is new of the answer."""
        reply = self.reply
        if reply is None or (now := (reply.text, reply.done, reply.tokens > 0)) == self.shown:
            return
        self.shown = now
        if words := reply.text.strip():
            self.box.classes(remove="soft")
            self.box.set_content(_escaped(words))
        if reply.speed:
            self.status.set_content(f"{reply.speed:.1f} {self.chat.t('tokens/s')}")
        if reply.done:
            self.foot.clear()
            with self.foot:
                self._foot(reply)
            self._finish(reply)

    def _foot(self, reply: Reply) -> None:
        t = self.chat.t
        speed = f"{reply.speed:.1f} {t('tokens/s')}" if reply.speed else ""
        if reply.answer is None:
            return
        reason = t.lookup(STOP_REASONS, reply.answer.stop_reason)
        wait = f"{(reply.first or reply.began) - reply.began:.2f} s"
        text(
            t(
                "{tokens} tokens · {speed} · first token after {wait} · {reason}",
                tokens=reply.tokens,
                speed=speed or "–",
                reason=reason,
                wait=wait,
            ),
            tag="span",
        )
        with line():
            button(t("Save as training row"), self._save, "quiet").props("data-answered")

    def _finish(self, reply: Reply) -> None:
        if reply.error is not None:
            with self.place:
                show_error(self.chat.t, reply.error)
            self.box.delete()
            self.turns = self.turns[:-1]
        elif reply.answer is not None:
            if reply.answer.reasoning:
                with self.place:
                    text(reply.answer.reasoning, "say tool small")
            words = reply.answer.text.strip()
            self.box.set_content(_escaped(words or self.chat.t("The answer is empty.")))
            if words:
                self.box.classes(remove="soft")
            if reply.answer.tokens:  # without tokens, it was stopped while it was queued
                self._show_fingerprint(reply.answer.fingerprint)
            self.turns = [*self.turns, Message("assistant", reply.answer.text, reasoning=reply.answer.reasoning)]

    def _show_fingerprint(self, fingerprint: str) -> None:
        """Show which weights answered; this cannot be known for an endpoint."""
        t = self.chat.t
        self.fingerprint = fingerprint
        self.head.clear()
        with self.head:
            if fingerprint:
                text(t("weights {fingerprint}", fingerprint=fingerprint), tag="span")
            else:
                text(t("endpoint {host}: weights cannot be verified", host=self.remote.host), tag="span")

    async def _save(self) -> None:
        row = {"conversations": as_row(self.turns[-2:], self.chat.system)}
        done = await run_in_thread(partial(self.chat.reader.call, "add_row", SAVED, name=SAVED, row=row))
        if isinstance(done, SartorError):
            ui.notify(self.chat.t(done.what), type="negative")
        else:
            ui.notify(self.chat.t("Saved to the dataset {name}.", name=SAVED), position="bottom")


class ChatView:
    """The columns, and the message box and settings that they share."""

    def __init__(self, workspace: Workspace, models: ChatModels, reader: Reader, t: Translator, run_name: str) -> None:
        self.workspace, self.models, self.reader, self.t = workspace, models, reader, t
        self.targets = models.targets()
        first = [target for target in self.targets if target.path == f"runs/{run_name}"]
        first = first or [target for target in self.targets if target.path == self.targets[0].path]
        self.columns = [Column(self, target) for target in sorted(first[:2], key=lambda target: target.tuned)]
        self.system, self.tools = "", ""
        self.settings: dict[str, Any] = {"max_new_tokens": 256, "do_sample": False, "temperature": 0.95, "top_p": 0.7}
        self.seed, self.thinking = 0, None

    def draw(self) -> None:
        t = self.t
        self.place = ui.element("div").classes("chat-cols")
        with self.place:
            for column in self.columns:
                column.draw()
        with card("ask"):
            self.box = ui.textarea(placeholder=t("Ask something (Enter sends)")).props(
                f'outlined autogrow dense aria-label="{t("Ask something (Enter sends)")}"'
            )
            self.box.classes("w-full").on("keydown.enter.exact.prevent", self._ask)
            self.error = ui.element("div")
            with line("spread"):
                with line():
                    button(t("Ask"), self._ask, "main")
                    button(t("Stop all"), self._stop)
                    button(t("Add column"), self._add)
                with line():
                    button(t("New chat"), self._clear, "quiet")
                    button(t("Export"), self._export, "quiet")
            with ui.expansion(t("System prompt, tools, sampling")).classes("w-full"):
                self._settings()
        ui.timer(EVERY_S, self._tick)

    def _settings(self) -> None:
        t = self.t
        ui.textarea(t("System prompt"), on_change=lambda e: setattr(self, "system", e.value or "")).props(
            "outlined dense autogrow"
        ).classes("w-full")
        ui.textarea(t("Tools (JSON list)"), on_change=lambda e: setattr(self, "tools", e.value or "")).props(
            "outlined dense autogrow"
        ).classes("w-full mono").style("margin:10px 0")
        with ui.element("div").classes("fields"):
            ui.select(
                {False: t("greedy"), True: t("random")},
                value=False,
                label=t("Sampling"),
                on_change=partial(self._set, "do_sample"),
            ).props("outlined dense")
            for key in ("max_new_tokens", "temperature", "top_p"):
                ui.number(key, value=self.settings[key], min=0, on_change=partial(self._set, key)).props(
                    "outlined dense"
                )
            ui.number(
                t("Seed"),
                value=0,
                min=0,
                precision=0,
                on_change=lambda e: setattr(self, "seed", int(e.value or 0)),
            ).props("outlined dense")
            ui.select(
                {None: t("template default"), True: t("on"), False: t("off")},
                value=None,
                label=t("Reasoning"),
                on_change=lambda e: setattr(self, "thinking", e.value),
            ).props("outlined dense")

    def _set(self, key: str, event: Any) -> None:
        value = event.value
        self.settings[key] = int(value or 1) if key == "max_new_tokens" else value

    def _tick(self) -> None:
        for column in self.columns:
            column.tick()

    def _ask(self) -> None:
        words = (self.box.value or "").strip()
        if not words or any(column.reply and not column.reply.done for column in self.columns):
            return
        self.error.clear()
        try:
            generation = GenerationSettings.model_validate(self.settings)
            options = {"seed": self.seed, "thinking": self.thinking, "tools": self._tools()}
        except (ValueError, SartorError) as error:
            with self.error:
                show_error(self.t, error)
            return
        self.box.value = ""
        for column in self.columns:
            column.ask(words, generation, **options)

    def _tools(self) -> tuple[Any, ...]:
        if not self.tools.strip():
            return ()
        try:
            found = json.loads(self.tools)
        except ValueError as error:
            raise ConfigError(
                "The tools are not valid JSON: {reason}.", "tools", "Write a JSON list of functions.", reason=error
            ) from None
        return tuple(found) if isinstance(found, list) else (found,)

    def _stop(self) -> None:
        for column in self.columns:
            if column.reply:
                column.reply.stop()

    def _add(self) -> None:
        if len(self.columns) < MAX_COLUMNS:
            shown = [column.target for column in self.columns]
            column = Column(self, next((target for target in self.targets if target not in shown), self.targets[0]))
            self.columns.append(column)
            with self.place:
                column.draw()

    def remove(self, column: Column) -> None:
        if len(self.columns) > 1:
            column.clear()
            self.columns.remove(column)
            column.root.delete()

    def _clear(self) -> None:
        for column in self.columns:
            column.clear()

    async def _export(self) -> None:
        system = [{"role": "system", "content": self.system}] if self.system else []
        columns = [
            {
                "model": f"{column.remote.url} {column.remote.model}"
                if column.target.remote
                else label(column.target, self.t),
                "fingerprint": column.fingerprint or None,
                "messages": system + [{"role": m.role, "content": m.text} for m in column.turns],
            }
            for column in self.columns
        ]
        conversation = {
            "settings": {**self.settings, "seed": self.seed, "enable_thinking": self.thinking},
            "tools": self.tools,
            "columns": columns,
        }
        made = await run_in_thread(lambda: json.dumps(conversation, ensure_ascii=False, indent=2))
        ui.download.content(str(made), "conversation.json")


def as_row(turns: Sequence[Message], system: str = "") -> list[dict[str, str]]:
    """A turn as a training row in sharegpt format, with the system prompt and the reasoning."""
    row = [{"from": "system", "value": system}] if system else []
    for turn in turns:
        thought = f"<think>\n{turn.reasoning}\n</think>\n\n" if turn.reasoning else ""
        row.append({"from": "human" if turn.role == "user" else "gpt", "value": thought + turn.text})
    return row


def label(target: Target, t: Translator) -> str:
    """The display name of a column's model."""
    if target.remote:
        return t("Endpoint (OpenAI-compatible)")
    return f"{target.name} · {t(PARTS[target.part])}" if target.part else target.name


def _escaped(words: str) -> str:

    return html.escape(visible(words))
