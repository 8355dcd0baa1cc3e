"""Engine: one loaded model, base and tuned, that answers, streams and computes losses."""

from __future__ import annotations

import functools
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from sartor.base.config import RunConfig
from sartor.base.permissions import NOTHING_ALLOWED, Permissions
from sartor.base.settings import GenerationSettings
from sartor.base.types import Message, TokenSequence, Tool, ToolCall
from sartor.inference.kv_cache import preallocated_cache
from sartor.inference.sampling import next_tokens
from sartor.inference.weight_prepack import prepack
from sartor.inference.weights import Weights, WeightSet
from sartor.model.batch import collate, micro_batches
from sartor.model.head import backbone, logits, token_losses
from sartor.model.load import load_model, load_tokenizer
from sartor.model.tokenizer_match import check_tokenizer
from sartor.prompt.answer_reader import AnswerReader
from sartor.prompt.encode import Encoder
from sartor.prompt.messages import message_of, split_reasoning
from sartor.prompt.template import Template

BATCH_ROWS = 64
"""Rows decoded together: more gives little throughput, and costs memory and time to the first answer."""
PREPACK_MIN_ROWS = 16
"""From this many prompts on, prepacking the weights pays: it takes about 0.3 s for 135 million."""
NO_LIMIT_TOKENS = 1 << 40
LOSS_TOKENS = 4096
"""Padded tokens per batch when computing losses."""

StopReason = Literal["stop", "length", "cancelled", "error"]
Conversation: TypeAlias = Sequence[Message | Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Answer:
    """A generated answer: the text without reasoning, control tokens and stop strings; ids are as generated."""

    text: str
    reasoning: str | None
    ids: tuple[int, ...]
    stop_reason: StopReason
    prompt_tokens: int
    tokens: int
    fingerprint: str


@dataclass(frozen=True, slots=True)
class RowLoss:
    """Negative log-likelihood (nats) of a row's label tokens."""

    id: str
    nll_sum: float
    label_tokens: int

    @property
    def per_token(self) -> float:
        return self.nll_sum / self.label_tokens if self.label_tokens else float("nan")


@dataclass(slots=True)
class Row:
    """A prompt being answered."""

    number: int
    prompt: list[int]
    limit: int
    ids: list[int]
    stop_reason: StopReason = "length"
    text: str = ""


class Engine:
    """A model with its tokenizer and template; made by `Engine.load` or `Engine.from_config`."""

    def __init__(self, weights: Weights, tokenizer: Any, encoder: Encoder) -> None:
        self.weights = weights
        self.tokenizer = tokenizer
        self.encoder = encoder

    @classmethod
    def load(
        cls,
        model_name_or_path: str | Path,
        adapter: str | Path | Sequence[str | Path] | None = None,
        *,
        permissions: Permissions = NOTHING_ALLOWED,
        **settings: Any,
    ) -> Engine:
        """Load a model and the adapters on top of it.

        `settings` are any settings of a settings file: `dtype`, `device`, `quantization_bit`, `template`, …. A model
        that needs its own Python code also needs `Permissions(trust_remote_code=True)`.

        Raises: ConfigError for an unknown setting; ModelError, PromptError.

        Example:
            >>> engine = sartor.Engine.load(model)
            >>> answer = engine.chat([{"role": "user", "content": "Who are you?"}])
            >>> answer.stop_reason in ("stop", "length")
            True
        """
        adapters = [] if adapter is None else [adapter] if isinstance(adapter, (str, Path)) else list(adapter)
        given = {"model_name_or_path": str(model_name_or_path), "adapter_name_or_path": [str(a) for a in adapters]}
        return cls.from_config(RunConfig.from_dict({**given, **settings}, permissions=permissions))

    @classmethod
    def from_config(cls, config: RunConfig) -> Engine:
        """Load what the model and prompt settings describe: revision, quantization, attention, template, and every
        adapter in order.

        With several adapters, "tuned" is the model with all of them, and "base" the model under all of them. Over a
        quantized model there can be one adapter, which is applied without merging.

        Raises: ModelError, PromptError.
        """
        settings, trust = config.model, config.permissions.trust_remote_code
        tokenizer = load_tokenizer(
            settings.model_name_or_path, revision=settings.model_revision, trust_remote_code=trust
        )
        prompt = config.prompt
        template = Template.from_tokenizer(
            tokenizer, prompt.template, default_system=prompt.default_system, enable_thinking=prompt.enable_thinking
        )
        model = load_model(settings, trust_remote_code=trust)
        for adapter in settings.adapter_name_or_path or (None,):
            check_tokenizer(tokenizer, model, adapter)
        model.requires_grad_(False)
        return cls(Weights(model, settings.adapter_name_or_path), tokenizer, Encoder(tokenizer, template, prompt))

    @property
    def model(self) -> Any:
        return self.weights.model

    @property
    def template(self) -> Template:
        return self.encoder.template

    @property
    def context_tokens(self) -> int:
        """How many tokens prompt and answer may have together; without a limit in the config, any number."""
        limit = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        return int(limit) if limit else NO_LIMIT_TOKENS

    @property
    def device(self) -> torch.device:
        device: torch.device = self.model.device
        return device

    def fingerprint(self, which: WeightSet = "tuned") -> str:
        """A hash over all weights that answer."""
        self.weights.use(which)
        return self.weights.fingerprint()

    def generate(
        self,
        prompts: Sequence[TokenSequence | Conversation],
        generation: GenerationSettings | None = None,
        *,
        weights: WeightSet = "tuned",
        seed: int = 0,
        on_done: Callable[[int, Answer], None] | None = None,
        numbers: Sequence[int] | None = None,
    ) -> list[Answer]:
        """Answer many prompts, in their order; `on_done(index, answer)` is called as each is finished.

        Rows of similar length are decoded together and leave the batch when they are done. `numbers` are the keys of
        the rows' random draws.

        Raises: PromptError for a conversation that the template cannot render.
        """
        settings = generation or GenerationSettings()
        encoded = [p if isinstance(p, TokenSequence) else self.prompt(p) for p in prompts]
        order = sorted(range(len(encoded)), key=lambda i: -len(encoded[i]))
        answers: list[Answer | None] = [None] * len(encoded)
        self.weights.use(weights)
        if len(order) >= PREPACK_MIN_ROWS:
            prepack(self.model)
        for start in range(0, len(order), BATCH_ROWS):
            rows = [
                Row(i, encoded[i].ids.tolist(), settings.max_new_tokens, []) for i in order[start : start + BATCH_ROWS]
            ]
            for row in self._decode(rows, settings, seed, numbers):
                answers[row.number] = answer = self.answer_of(row, settings)
                if on_done:
                    on_done(row.number, answer)
        return [answer for answer in answers if answer is not None]

    def prompt(self, messages: Conversation, tools: Sequence[Tool] = ()) -> TokenSequence:
        """The ids of the prompt for the model's next turn. Raises: PromptError."""
        return self.encoder.prompt(tuple(message_of(message) for message in messages), tuple(tools))

    def chat(
        self,
        messages: Conversation,
        generation: GenerationSettings | None = None,
        *,
        tools: Sequence[Tool] = (),
        weights: WeightSet = "tuned",
        seed: int = 0,
    ) -> Answer:
        """The model's next turn. Raises: PromptError."""
        return self.generate([self.prompt(messages, tools)], generation, weights=weights, seed=seed)[0]

    def stream(
        self,
        messages: Conversation,
        generation: GenerationSettings | None = None,
        *,
        tools: Sequence[Tool] = (),
        weights: WeightSet = "tuned",
        seed: int = 0,
    ) -> Generator[str, None, Answer]:
        """Yield the next turn in pieces of text, never half a character; the generator's return value is the Answer."""
        settings = generation or GenerationSettings()
        self.weights.use(weights)
        row = Row(0, self.prompt(messages, tools).ids.tolist(), settings.max_new_tokens, [])
        shown = 0
        for _ in self._steps([row], settings, seed, None):
            text, safe = self.safe_text(row, settings)
            if safe > shown:
                yield text[shown:safe]
                shown = safe
        text = self.final_text(row)
        if len(text) > shown:
            yield text[shown:]
        return self.answer_of(row, settings)

    @torch.inference_mode()
    def losses(self, rows: Sequence[TokenSequence], *, weights: WeightSet = "tuned") -> list[RowLoss]:
        """The loss of each row's label tokens, in the order given."""
        self.weights.use(weights)
        lengths = [len(row) for row in rows]
        found: dict[int, RowLoss] = {}
        for chosen in micro_batches(range(len(rows)), lengths, BATCH_ROWS, max(LOSS_TOKENS, *lengths, 1)):
            batch = collate(rows, chosen, self.pad_id).to(self.device)
            values = token_losses(self.model, batch).double().cpu()
            counts = [rows[i].label_tokens for i in chosen]
            for i, part in zip(chosen, torch.split(values, counts), strict=True):
                origin = rows[i].origin
                found[i] = RowLoss(origin.id if origin else str(i), float(part.sum()), len(part))
        return [found[i] for i in range(len(rows))]

    @property
    def pad_id(self) -> int:
        pad = self.tokenizer.pad_token_id
        return int(pad if pad is not None else self.encoder.stop_ids[0])

    def _decode(
        self, rows: list[Row], settings: GenerationSettings, seed: int, numbers: Sequence[int] | None
    ) -> Iterator[Row]:
        for finished in self._steps(rows, settings, seed, numbers):
            yield from finished

    @torch.inference_mode()
    def _steps(
        self, rows: list[Row], settings: GenerationSettings, seed: int, numbers: Sequence[int] | None
    ) -> Iterator[list[Row]]:
        """Decode one token for every row at a time; yield the rows that finished, and drop them from the batch."""
        live = list(rows)
        cache = preallocated_cache(self.model)
        ids_BT, mask_BT = left_padded([row.prompt for row in live], self.pad_id, self.device)
        positions_BT = (mask_BT.cumsum(-1) - 1).clamp_min(0)
        while live:
            output = backbone(self.model)(
                input_ids=ids_BT,
                attention_mask=mask_BT,
                position_ids=positions_BT,
                past_key_values=cache,
                use_cache=True,
            )
            logits_BV = logits(self.model, output.last_hidden_state[:, -1])
            keys = [(seed, numbers[row.number] if numbers else row.number, len(row.ids)) for row in live]
            seen = [row.prompt + row.ids for row in live] if settings.repetition_penalty != 1.0 else []
            chosen = next_tokens(logits_BV, settings, seen, keys)
            for row, token in zip(live, chosen.tolist(), strict=True):
                self.take(row, token, settings)
            finished = [row for row in live if row.stop_reason == "stop" or len(row.ids) >= row.limit]
            kept = [i for i, row in enumerate(live) if row not in finished]
            if finished and kept:
                index = torch.tensor(kept, device=self.device)
                cache.batch_select_indices(index)
                chosen, mask_BT, positions_BT = chosen[index], mask_BT[index], positions_BT[index]
            live = [live[i] for i in kept]
            yield finished
            ids_BT = chosen[:, None]
            mask_BT = torch.cat([mask_BT, mask_BT.new_ones(mask_BT.shape[0], 1)], dim=1)
            positions_BT = positions_BT[:, -1:] + 1

    def take(self, row: Row, token: int, settings: GenerationSettings) -> None:
        """Append a token; a stop token or a stop string ends the row."""
        row.ids.append(token)
        if self.encoder.ends_turn(row.ids):
            row.stop_reason, row.text = "stop", self.text_of(row.ids[:-1], whole=True)
        elif settings.stop:
            text = self.text_of(row.ids)
            cuts = [place for stop in settings.stop if (place := text.find(stop)) >= 0]
            if cuts:
                row.stop_reason, row.text = "stop", text[: min(cuts)]

    def safe_text(self, row: Row, settings: GenerationSettings) -> tuple[str, int]:
        """The text so far, and how many of its characters no later token can change."""
        if row.stop_reason == "stop":
            return row.text, len(row.text)
        text = self.text_of(row.ids)
        whole = text.rstrip("\ufffd")  # the bytes of half a character
        return text, len(whole) - held_back(whole, settings.stop)

    def final_text(self, row: Row) -> str:
        """The text of a finished row: cut at its stop, no half character."""
        return row.text if row.stop_reason == "stop" else self.text_of(row.ids, whole=True).rstrip("\ufffd")

    @functools.cached_property
    def reader(self) -> AnswerReader:
        """Reads answers as the template would have written them."""
        return AnswerReader(self.template, getattr(self.tokenizer, "response_template", None))

    def text_of(self, ids: list[int], *, whole: bool = False) -> str:
        """The text of an answer's ids, without control tokens and headers; `whole`: no more will follow."""
        text: str = self.tokenizer.decode(ids, skip_special_tokens=not self.reader.has_headers)
        return self.reader.text(text, whole=whole)

    def calls_of(self, answer: Answer, tools: Sequence[Tool]) -> tuple[str, list[ToolCall]]:
        """The text beside an answer's tool calls, and the calls; the whole text if there are none."""
        ids = list(answer.ids)
        while ids and ids[-1] in self.encoder.stop_ids:
            ids.pop()
        rest, calls = self.reader.read_calls(self.tokenizer.decode(ids, skip_special_tokens=False), tools)
        return (split_reasoning(Message("assistant", rest)).text.strip(), calls) if calls else (answer.text, [])

    def answer_of(self, row: Row, settings: GenerationSettings) -> Answer:
        text = self.final_text(row)
        message = split_reasoning(Message("assistant", text))
        return Answer(
            message.text,
            message.reasoning,
            tuple(row.ids),
            row.stop_reason,
            len(row.prompt),
            len(row.ids),
            self.weights.fingerprint(),
        )


def left_padded(prompts: Sequence[list[int]], pad_id: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """(ids_BT, mask_BT), padded on the left."""
    longest = max(len(prompt) for prompt in prompts)
    ids = torch.full((len(prompts), longest), pad_id, dtype=torch.long)
    mask = torch.zeros((len(prompts), longest), dtype=torch.long)
    for line, prompt in enumerate(prompts):
        ids[line, longest - len(prompt) :] = torch.tensor(prompt)
        mask[line, longest - len(prompt) :] = 1
    return ids.to(device), mask.to(device)


def held_back(text: str, stops: Sequence[str]) -> int:
    """How many characters at the end could be the start of a stop string."""
    return max((n for stop in stops for n in range(1, len(stop)) if text.endswith(stop[:n])), default=0)
