"""Streaming: rows encoded while they are learned give the same run again, keep their ledger, and refuse to guess."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from sartor import api
from sartor.api.prepare_data import make_encoder, prepare_rows
from sartor.base.config import read_config
from sartor.base.errors import ConfigError, DataError, Interrupted
from sartor.base.rundir import RunDir
from sartor.base.types import Demonstration, Message, Origin
from sartor.data import mixing
from sartor.data.streaming import shuffled
from sartor.prompt.encode import Encoder
from sartor.prompt.row_stream import RowStream


@pytest.fixture
def streamed(settings: dict[str, Any]) -> dict[str, Any]:
    return {**settings, "streaming": True, "buffer_size": 8}


def weights(run: RunDir) -> dict[str, list[float]]:
    return {name: t.flatten().tolist() for name, t in load_file(run / "adapter_model.safetensors").items()}


def losses(run: RunDir) -> list[float]:
    return [event["loss"] for event in run.read_events() if event["kind"] == "step"]


class StopAt:
    def __init__(self, step: int) -> None:
        self.step = step

    def on_event(self, event: Any) -> None:
        if event["kind"] == "step" and event["step"] == self.step:
            signal.raise_signal(signal.SIGINT)


def test_a_stopped_run_goes_on_to_the_same_bits(streamed: dict[str, Any], project: Path) -> None:
    straight = api.train(**{**streamed, "output_dir": str(project / "runs" / "straight"), "max_steps": 6})
    again = {**streamed, "max_steps": 6}
    with pytest.raises(Interrupted):
        api.train(**again, callbacks=[StopAt(3)])
    resumed = api.train(**again)
    assert weights(resumed.dir) == weights(straight.dir)
    assert losses(resumed.dir) == losses(straight.dir)
    ours, theirs = (run.dir.read_json("data.json") for run in (resumed, straight))
    assert ours["ledger"] == theirs["ledger"]
    assert set(ours["split"]["train"]) == set(theirs["split"]["train"])


def test_the_ledger_balances_and_the_first_rows_are_held_out(streamed: dict[str, Any]) -> None:
    run = api.train(**streamed)
    data = run.dir.read_json("data.json")
    ledger = data["ledger"]
    assert (ledger["training"], ledger["held_out"], ledger["repeats"]) == (16, 8, 0)
    assert ledger["read"] == sum(ledger[name] for name in ("training", "held_out", "left_out"))
    assert [int(name.split(":")[-1].split("#")[0]) for name in data["split"]["held_out"]] == list(range(1, 9))
    assert not set(data["split"]["train"]) & set(data["split"]["held_out"])
    config = read_config(None, (), **streamed)
    shared = prepare_rows(config, make_encoder(config))
    assert [example.origin.id for example in shared.held_out] == data["split"]["held_out"]


def test_several_passes_are_counted_as_repeats(streamed: dict[str, Any]) -> None:
    run = api.train(**{**streamed, "max_steps": 10})
    ledger = run.dir.read_json("data.json")["ledger"]
    assert (ledger["read"], ledger["training"], ledger["repeats"]) == (40, 32, 8)


def test_another_seed_gives_another_order(streamed: dict[str, Any], project: Path) -> None:
    one = api.train(**streamed)
    two = api.train(**{**streamed, "output_dir": str(project / "runs" / "two"), "data_seed": 5})
    assert losses(one.dir) != losses(two.dir)


def test_the_estimate_and_the_preflight_look_at_a_sample(streamed: dict[str, Any]) -> None:
    found, plan = api.estimate(**streamed)
    assert (found.total_steps, plan.rows, plan.streaming) == (4, 16, True)
    run = api.train(**streamed, preflight=True)
    assert run.dir.read_json("plan.json")["streaming"] is True
    assert run.state == "finished"


@pytest.mark.parametrize(
    ("change", "named"),
    [({"max_steps": -1}, "max_steps"), ({"val_size": 0.1}, "eval_dataset"), ({"max_samples": 5}, "max_samples")],
)
def test_what_a_stream_cannot_do_is_refused(streamed: dict[str, Any], change: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError) as refused:
        api.train(**{**streamed, **change})
    assert named in str(refused.value)


def test_a_sample_a_slice_and_a_saved_split_are_refused(streamed: dict[str, Any], project: Path) -> None:
    registry = project / "data" / "dataset_info.json"
    before = json.loads(registry.read_text(encoding="utf-8"))
    for change in ({"num_samples": 3}, {"split": "train[:50%]"}):
        registry.write_text(json.dumps({"chapters": {**before["chapters"], **change}}), encoding="utf-8")
        with pytest.raises(ConfigError, match="not supported with streaming"):
            api.train(**streamed)
    registry.write_text(json.dumps(before), encoding="utf-8")
    api.split("chapters", dataset_dir=project / "data", val_size=4)
    with pytest.raises(ConfigError, match="saved split"):
        api.train(**streamed)


def test_bad_rows_later_in_the_stream_stop_the_run(streamed: dict[str, Any], project: Path) -> None:
    good = [{"instruction": f"Say {n}.", "output": f"{n}!"} for n in range(1500)]
    rows = [*good, *({"instruction": f"Say {n}.", "output": ""} for n in range(300))]
    (project / "data" / "late.json").write_text(json.dumps(rows), encoding="utf-8")
    registry = project / "data" / "dataset_info.json"
    registry.write_text(json.dumps({"late": {"file_name": "late.json"}}), encoding="utf-8")
    with pytest.raises(DataError, match="cannot be used"):
        api.train(**{**streamed, "dataset": "late", "max_steps": 1000, "buffer_size": 64})
    assert RunDir(Path(streamed["output_dir"])).state() == "failed"


def rows(seen: list[int], stop: int | None = None) -> Iterator[Demonstration]:
    number = 0
    while stop is None or number < stop:
        seen.append(number)
        messages = (Message("user", f"Say {number}."), Message("assistant", f"{number}!"))
        yield Demonstration(messages, Origin("made", "made.jsonl", number + 1))
        number += 1


@pytest.fixture
def encoder(settings: dict[str, Any]) -> Encoder:
    return make_encoder(read_config(None, (), **settings))


def test_a_stream_reads_only_a_little_ahead_and_forgets(encoder: Encoder) -> None:
    seen: list[int] = []
    stream = RowStream(lambda turn: rows(seen), encoder, 10**9, behind=4, on_skipped=lambda row: None, ahead=50)
    assert [stream[n].origin.row for n in range(10)] == list(range(1, 11))  # type: ignore[union-attr]
    assert stream[7].origin == Origin("made", "made.jsonl", 8)
    with pytest.raises(IndexError, match="discarded"):
        stream[3]
    stream.close()
    assert len(seen) < 4000
    assert not any(thread.name == "encoding" for thread in threading.enumerate())
    assert (
        stream.release_before(5) == {f"made:made.jsonl:{n + 1}": 1 for n in range(5)}
        or len(stream.release_before(10)) == 10
    )


def test_what_breaks_in_the_thread_is_raised_where_the_row_is_wanted(encoder: Encoder) -> None:
    def breaking(turn: int) -> Iterator[Demonstration]:
        yield from rows([], 5)
        raise DataError("The disk is gone.", "here", "Look.")

    stream = RowStream(breaking, encoder, 100, behind=4, on_skipped=lambda row: None)
    with pytest.raises(DataError, match="disk is gone"):
        stream[50]
    stream.close()


def test_a_stream_without_a_usable_row_says_so(encoder: Encoder) -> None:
    stream = RowStream(lambda turn: iter(()), encoder, 100, behind=4, on_skipped=lambda row: None)
    with pytest.raises(DataError, match="No row"):
        stream[0]
    stream.close()


@given(st.integers(0, 60), st.integers(1, 70), st.integers(0, 3))
def test_the_buffer_gives_each_row_once(count: int, size: int, turn: int) -> None:
    order = list(shuffled(range(count), size, 1, turn))
    assert sorted(order) == list(range(count))
    assert order == list(shuffled(range(count), size, 1, turn))
    assert all(row < place + size + 1 for place, row in enumerate(order))


@given(
    st.lists(st.integers(1, 6), min_size=2, max_size=3),
    st.sampled_from(["interleave_under", "interleave_over"]),
    st.integers(0, 5),
)
def test_streams_mix_as_lists_do(sizes: list[int], strategy: str, seed: int) -> None:
    parts = [[(part, n) for n in range(size)] for part, size in enumerate(sizes)]
    probs = [1 / len(parts)] * len(parts)
    mixed = mixing.interleave(parts, strategy, probs, seed)
    assert list(mixing.interleave_iterators([part.__iter__ for part in parts], strategy, probs, seed)) == mixed
    assert {row[0] for _, row in mixed} <= set(range(len(parts)))
    if strategy == "interleave_over":
        assert {row for _, row in mixed} == {row for part in parts for row in part}
