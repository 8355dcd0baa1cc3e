"""Requests that join and leave a running batch are answered as if they were alone; nobody starves or is mixed up."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sartor.base.errors import PromptError
from sartor.base.settings import GenerationSettings
from sartor.inference.batcher import Batcher
from sartor.inference.engine import Engine
from sartor.inference.requests import Progress, QueueFull, Request, Ticket
from support.tiny import make_model
from support.tiny_adapter import save_adapter

TEXTS = ["Hi", "Who is Mr Darcy, and why?", "一二三", "a" * 90, "?", "Tell me more about Longbourn."]


@pytest.fixture(scope="module")
def engine(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    adapter = save_adapter(make_model(), tmp_path_factory.mktemp("adapter"), base=tiny_model_dir)
    return Engine.load(str(tiny_model_dir), adapter, dtype="float32", device="cpu")


@pytest.fixture
def batcher(engine: Engine) -> Iterator[Batcher]:
    batcher = Batcher(engine, max_rows=8, max_waiting=64)
    yield batcher
    batcher.close()


class Listener:
    """Collects what requests are told; `tell_at` runs a callback when one has heard so many steps."""

    def __init__(self) -> None:
        self.heard: dict[int, list[Progress]] = {}
        self.done = threading.Semaphore(0)
        self.order: list[int] = []
        self.at: dict[tuple[int, int], Any] = {}

    def __call__(self, index: int, progress: Progress) -> None:
        self.heard.setdefault(index, []).append(progress)
        if action := self.at.pop((index, len(self.heard[index])), None):
            action()
        if progress.answer or progress.error:
            self.order.append(index)
            self.done.release()

    def wait(self, count: int) -> None:
        for _ in range(count):
            assert self.done.acquire()


def requests_of(engine: Engine, generation: GenerationSettings, texts: Sequence[str] = TEXTS) -> list[Request]:
    prompts = [tuple(engine.prompt([{"role": "user", "content": text}]).ids.tolist()) for text in texts]
    return [Request(prompt, generation, number=number) for number, prompt in enumerate(prompts)]


@pytest.mark.parametrize("sampling", [{}, {"do_sample": True, "temperature": 1.3, "top_p": 0.95}])
def test_rows_that_join_late_are_answered_as_if_alone(
    engine: Engine, batcher: Batcher, sampling: dict[str, Any]
) -> None:
    settings = GenerationSettings(max_new_tokens=80, **sampling)
    wanted = requests_of(engine, settings)
    wanted[1:4] = [
        replace(r, generation=settings.model_copy(update={"max_new_tokens": 7 * i}))
        for i, r in enumerate(wanted[1:4], 1)
    ]
    listener, late = Listener(), Listener()
    listener.at[(0, 3)] = lambda: batcher.submit(wanted[1:3], lambda i, p: late(i + 1, p))
    listener.at[(0, 9)] = lambda: batcher.submit(wanted[3:], lambda i, p: late(i + 3, p))
    batcher.submit(wanted[:1], listener)
    listener.wait(1)
    late.wait(len(wanted) - 1)
    for number, request in enumerate(wanted):
        alone = engine.generate(
            [[{"role": "user", "content": TEXTS[number]}]], request.generation, numbers=[number], weights="tuned"
        )[0]
        told = (listener if number == 0 else late).heard[number]
        assert told[-1].answer is not None
        assert told[-1].answer.ids == alone.ids, number
        assert told[-1].answer.text == alone.text
        texts = [progress.text for progress in told]
        assert all(after.startswith(before) for before, after in itertools.pairwise(texts))


def test_a_long_queue_is_served_in_order_and_padding_is_cut_off(engine: Engine, batcher: Batcher) -> None:
    settings = GenerationSettings(max_new_tokens=12)
    wanted = requests_of(engine, settings, TEXTS * 6)
    listener = Listener()
    batcher.submit(wanted, listener)
    listener.wait(len(wanted))
    assert sorted(listener.order[:8]) == list(range(8))
    assert batcher.waiting == batcher.running == 0


def test_a_batch_never_mixes_weights_and_nobody_is_overtaken(engine: Engine, batcher: Batcher) -> None:
    settings = GenerationSettings(max_new_tokens=6)
    which = ["tuned", "tuned", "base", "tuned", "base", "base"]
    wanted = [replace(r, weights=w) for r, w in zip(requests_of(engine, settings), which, strict=True)]
    listener = Listener()
    batcher.submit(wanted, listener)
    listener.wait(len(wanted))
    assert [which[i] for i in listener.order] == which
    for number, name in enumerate(which):
        answer = listener.heard[number][-1].answer
        assert answer is not None
        assert answer.fingerprint == engine.fingerprint(name)  # type: ignore[arg-type]
        alone = engine.generate([[{"role": "user", "content": TEXTS[number]}]], settings, weights=name)  # type: ignore[arg-type]
        assert answer.ids == alone[0].ids


def test_log_probabilities_are_those_of_the_model(engine: Engine, batcher: Batcher) -> None:
    import torch

    request = replace(requests_of(engine, GenerationSettings(max_new_tokens=4))[0], top_logprobs=3)
    listener = Listener()
    batcher.submit([request], listener)
    listener.wait(1)
    tokens = [p.token for p in listener.heard[0] if p.token]
    engine.weights.use("tuned")
    ids = [*request.prompt, *(t.id for t in tokens)]
    with torch.inference_mode():
        values = engine.model(input_ids=torch.tensor([ids])).logits[0, len(request.prompt) - 1 : -1].log_softmax(-1)
    assert len(tokens) == 4
    for place, token in enumerate(tokens):
        assert token.logprob == pytest.approx(float(values[place, token.id]), abs=1e-4)
        assert [id for id, _ in token.top] == values[place].topk(3).indices.tolist()


def test_penalties_push_repeated_tokens_away(engine: Engine, batcher: Batcher) -> None:
    plain = requests_of(engine, GenerationSettings(max_new_tokens=24))[0]
    listener = Listener()
    batcher.submit([plain, replace(plain, frequency_penalty=2.0, presence_penalty=2.0)], listener)
    listener.wait(2)
    first, second = (listener.heard[i][-1].answer for i in (0, 1))
    assert first is not None
    assert second is not None
    assert len(set(second.ids)) > len(set(first.ids))


def test_a_cancelled_request_leaves_and_others_go_on(engine: Engine, batcher: Batcher) -> None:
    wanted = requests_of(engine, GenerationSettings(max_new_tokens=40))[:2]
    listener = Listener()
    tickets: list[Ticket] = []
    listener.at[(0, 3)] = lambda: tickets[0].cancel()
    with batcher._changed:  # both in line before the thread may look
        tickets += batcher.submit(wanted, listener)
    listener.wait(2)
    first, second = (listener.heard[i][-1].answer for i in (0, 1))
    assert first is not None
    assert second is not None
    assert first.stop_reason == "cancelled"
    assert 3 <= len(first.ids) < 6
    assert len(second.ids) == 40


def test_more_than_may_wait_is_refused_whole(engine: Engine) -> None:
    batcher = Batcher(engine, max_rows=1, max_waiting=2)
    wanted = requests_of(engine, GenerationSettings(max_new_tokens=3))
    with pytest.raises(QueueFull):
        batcher.submit(wanted[:3], Listener())
    assert batcher.waiting == 0
    batcher.close()
    with pytest.raises(QueueFull):
        batcher.submit(wanted[:1], Listener())


def test_a_failed_batch_is_told_and_the_next_one_served(
    engine: Engine, batcher: Batcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = requests_of(engine, GenerationSettings(max_new_tokens=3))[:1]
    listener = Listener()
    with monkeypatch.context() as patch:
        patch.setattr(batcher, "_forward", lambda *a: (_ for _ in ()).throw(RuntimeError("out of memory")))
        batcher.submit(wanted, listener)
        listener.wait(1)
    assert listener.heard[0][-1].error == "RuntimeError: out of memory"
    batcher.submit(wanted, listener)
    listener.wait(1)
    assert listener.heard[0][-1].answer is not None


def test_a_model_with_sliding_windows_is_served_batch_by_batch(tiny_tokenizer: Any, tmp_path: Path) -> None:
    """Its cache cannot be joined: later requests wait until the batch has run dry, and are answered as alone."""
    import torch
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    torch.manual_seed(0)
    config = Gemma3TextConfig(
        vocab_size=264,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=7,
        num_attention_heads=4,
        head_dim=16,
        num_key_value_heads=2,
        max_position_embeddings=512,
        sliding_window=16,
        query_pre_attn_scalar=16,
        eos_token_id=256,
        pad_token_id=257,
        bos_token_id=None,
    )
    Gemma3ForCausalLM(config).save_pretrained(tmp_path)
    tiny_tokenizer.save_pretrained(tmp_path)
    engine = Engine.load(str(tmp_path), dtype="float32", device="cpu")
    batcher, listener, late = Batcher(engine), Listener(), Listener()
    settings = GenerationSettings(max_new_tokens=24)
    wanted = requests_of(engine, settings)
    listener.at[(0, 3)] = lambda: batcher.submit(wanted[3:], lambda i, p: late(i + 3, p))
    batcher.submit(wanted[:3], listener)
    listener.wait(3)
    late.wait(3)
    batcher.close()
    for number, text in enumerate(TEXTS):
        answer = (listener if number < 3 else late).heard[number][-1].answer
        assert answer is not None
        assert answer.ids == engine.generate([[{"role": "user", "content": text}]], settings)[0].ids, number


def test_the_padding_that_a_long_prompt_leaves_behind_is_trimmed(engine: Engine, batcher: Batcher) -> None:
    settings = GenerationSettings(max_new_tokens=12)
    short, long = requests_of(engine, settings, ["Hi", "b" * 200])
    long = replace(long, generation=settings.model_copy(update={"max_new_tokens": 2}))
    listener = Listener()
    batcher.submit([short, long], listener)
    listener.wait(2)
    answer = listener.heard[0][-1].answer
    assert answer, listener.heard[0][-1].error
    alone = engine.chat([{"role": "user", "content": "Hi"}], settings)
    assert answer.ids == alone.ids


def test_a_prompt_that_fills_the_context_is_refused_before_any_work(
    engine: Engine, batcher: Batcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batcher, "_forward", lambda *given: pytest.fail("it was read"))
    settings = GenerationSettings(max_new_tokens=5)
    with pytest.raises(PromptError, match="context has"):
        batcher.submit([Request((5,) * engine.context_tokens, settings)], Listener())
    with pytest.raises(PromptError, match="characters"):
        batcher.require_fit(engine.context_tokens * 16 + 1)
    batcher.require_fit(engine.context_tokens * 16)
    assert batcher.waiting == batcher.running == 0


def test_an_answer_ends_where_the_context_does(engine: Engine, batcher: Batcher) -> None:
    listener = Listener()
    batcher.submit([Request((5,) * (engine.context_tokens - 3), GenerationSettings(max_new_tokens=50))], listener)
    listener.wait(1)
    answer = listener.heard[0][-1].answer
    assert answer is not None
    assert answer.tokens <= 3


def test_a_long_prompt_read_in_pieces_is_answered_as_if_read_at_once(
    engine: Engine, batcher: Batcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sartor.inference.prefill.CHUNK_TOKENS", 7)
    wanted = requests_of(engine, GenerationSettings(max_new_tokens=20))
    listener = Listener()
    batcher.submit(wanted, listener)
    listener.wait(len(wanted))
    for number, text in enumerate(TEXTS):
        alone = engine.chat([{"role": "user", "content": text}], GenerationSettings(max_new_tokens=20))
        answer = listener.heard[number][-1].answer
        assert answer is not None
        assert answer.ids == alone.ids


class Pieces:
    """Counts the forward passes by their width, and runs an action at one of them."""

    def __init__(self, batcher: Batcher, monkeypatch: pytest.MonkeyPatch) -> None:
        self.widths: list[int] = []
        self.at: dict[int, Any] = {}
        self.forward = batcher._forward
        monkeypatch.setattr("sartor.inference.prefill.CHUNK_TOKENS", 8)
        monkeypatch.setattr(batcher, "_forward", self)

    def __call__(self, ids: Any, *rest: Any) -> Any:
        self.widths.append(ids.shape[1])
        if action := self.at.pop(len(self.widths), None):
            action()
        return self.forward(ids, *rest)


def test_reading_a_prompt_stops_when_its_client_is_gone(
    engine: Engine, batcher: Batcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    pieces, listener, tickets = Pieces(batcher, monkeypatch), Listener(), list[Ticket]()
    pieces.at[3] = lambda: tickets[0].cancel()
    with batcher._changed:  # it starts only when the ticket is known
        tickets += batcher.submit([Request((5,) * 200, GenerationSettings(max_new_tokens=5))], listener)
    listener.wait(1)
    answer = listener.heard[0][-1].answer
    assert answer is not None
    assert answer.stop_reason == "cancelled"
    assert pieces.widths == [8, 8, 8], "nothing is read after it"
    assert batcher.running == 0


def test_others_go_on_while_a_long_prompt_is_read(
    engine: Engine, batcher: Batcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    pieces, listener, late = Pieces(batcher, monkeypatch), Listener(), Listener()
    settings = GenerationSettings(max_new_tokens=60)
    listener.at[(0, 2)] = lambda: batcher.submit([Request((5,) * 200, settings)], late)
    batcher.submit(requests_of(engine, settings)[:1], listener)
    listener.wait(1)
    late.wait(1)
    reading = "".join("P" if width > 1 else "s" for width in pieces.widths)
    assert "PsPsPsPsPsPs" in reading, reading


def test_a_failed_piece_fails_its_own_and_the_thread_lives(
    engine: Engine, batcher: Batcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    pieces, listener = Pieces(batcher, monkeypatch), Listener()
    pieces.at[2] = lambda: 1 / 0
    batcher.submit([Request((5,) * 100, GenerationSettings(max_new_tokens=5))], listener)
    listener.wait(1)
    assert "ZeroDivisionError" in str(listener.heard[0][-1].error)
    again = Listener()
    batcher.submit(requests_of(engine, GenerationSettings(max_new_tokens=2))[:1], again)
    again.wait(1)
    assert again.heard[0][-1].answer is not None
