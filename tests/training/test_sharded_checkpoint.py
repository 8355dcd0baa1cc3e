"""Shards: any cut is read back whole or cut otherwise; an index that lies is refused; states of LoRA come back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from sartor.base.errors import ModelError, RunError
from sartor.base.rundir import RunDir
from sartor.base.settings import MethodSettings
from sartor.model.load import adapt
from sartor.training import checkpoint
from sartor.training.checkpoint import Progress
from sartor.training.distributed import processes, sharded_checkpoint
from support.tiny import make_model

WHOLE = torch.arange(35, dtype=torch.float32).view(7, 5)


def cut(folder: Path, rows: list[int]) -> Path:
    """WHOLE in pieces of so many rows, one a process."""
    parts, start = [], 0
    for rank, size in enumerate(rows):
        name = f"shard-{rank:05d}-of-{len(rows):05d}.safetensors"
        save_file({"weight/w": WHOLE[start : start + size].clone(), "random/cpu": torch.tensor([rank])}, folder / name)
        told = {"shape": [7, 5], "offset": [start, 0], "size": [size, 5], "file": name}
        parts.append({"files": {}, "tensors": {"weight/w": told}})
        start += size
    sharded_checkpoint.write_index(folder, parts)
    return folder


@pytest.mark.parametrize("rows", [[7], [4, 3], [3, 3, 1], [1] * 7])
def test_any_cut_is_read_whole(tmp_path: Path, rows: list[int]) -> None:
    assert torch.equal(sharded_checkpoint.Shards(cut(tmp_path, rows)).get("weight/w"), WHOLE)


@pytest.mark.parametrize("start", range(7))
def test_a_part_is_filled_from_the_pieces_that_it_touches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: int
) -> None:
    part = torch.zeros(2, 5)[: 7 - start]
    monkeypatch.setattr(sharded_checkpoint, "_local_shard", lambda target, everywhere=False: (part, [start, 0]))
    sharded_checkpoint.Shards(cut(tmp_path, [3, 3, 1])).fill("weight/w", torch.zeros(7, 5))
    assert torch.equal(part, WHOLE[start : start + 2])


def test_fewer_processes_take_the_random_states_of_the_first_and_more_go_round(tmp_path: Path) -> None:
    found = sharded_checkpoint.Shards(cut(tmp_path, [3, 3, 1]))
    assert [int(found.random(rank)["cpu"]) for rank in range(5)] == [0, 1, 2, 0, 1]


@pytest.mark.parametrize(
    "lie",
    [
        {"file": "../outside.safetensors"},
        {"file": "/etc/hostname"},
        {"file": "missing.safetensors"},
        {"offset": [-1, 0]},
        {"offset": [6, 0]},
        {"offset": [0]},
        {"size": [2, 5]},
        {"size": "many"},
    ],
    ids=str,
)
def test_an_index_that_lies_is_refused(tmp_path: Path, lie: dict[str, Any]) -> None:
    folder = tmp_path / "checkpoint-1"
    folder.mkdir()
    save_file({"weight/w": WHOLE}, tmp_path / "outside.safetensors")
    index = json.loads((cut(folder, [4, 3]) / sharded_checkpoint.INDEX).read_text(encoding="utf-8"))
    index["tensors"]["weight/w"]["pieces"][1] |= lie
    (folder / sharded_checkpoint.INDEX).write_text(json.dumps(index), encoding="utf-8")
    with pytest.raises(ModelError):
        sharded_checkpoint.Shards(folder).get("weight/w")


@pytest.mark.parametrize("content", ["", "[]", '{"processes": 2}', '{"processes": "x", "tensors": {}}', "null"])
def test_a_damaged_index_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / sharded_checkpoint.INDEX).write_text(content, encoding="utf-8")
    with pytest.raises(ModelError, match="index is damaged"):
        sharded_checkpoint.Shards(tmp_path)


def lora(seed: int) -> tuple[Any, torch.optim.Optimizer]:
    model = adapt(make_model(), MethodSettings(lora_rank=4), seed=seed)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(2):
        model(input_ids=torch.arange(12).view(2, 6), labels=torch.arange(12).view(2, 6)).loss.backward()
        optimizer.step()
    return model, optimizer


def test_weights_and_states_come_back_to_the_bit(tmp_path: Path) -> None:
    model, optimizer = lora(1)
    path = checkpoint.save_sharded(
        RunDir(tmp_path), Progress(step=2), model=model, optimizer=optimizer, scheduler_state={}, fingerprint={}
    )
    assert checkpoint.verify(path) is None
    other, empty = lora(2)
    checkpoint.load_trained_weights(path, other)
    checkpoint.load_optimizer(path, empty)
    for mine, its in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(mine, its)
    before, after = checkpoint.flatten_optimizer(optimizer), checkpoint.flatten_optimizer(empty)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert checkpoint.latest(RunDir(tmp_path))[0] == path


def test_weights_of_another_shape_are_refused(tmp_path: Path) -> None:
    model, optimizer = lora(1)
    path = checkpoint.save_sharded(
        RunDir(tmp_path), Progress(step=2), model=model, optimizer=optimizer, scheduler_state={}, fingerprint={}
    )
    for method in (MethodSettings(lora_rank=8), MethodSettings(finetuning_type="full")):
        with pytest.raises(ModelError, match=r"shape|do not fit"):
            checkpoint.load_trained_weights(path, adapt(make_model(), method))


def test_a_disk_that_is_full_for_another_process_is_an_error_for_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "all_gather", lambda mine: [mine, (None, (28, "No space left on device"))])
    model, optimizer = lora(1)
    with pytest.raises(RunError, match="full"):
        checkpoint.save_sharded(
            RunDir(tmp_path), Progress(step=2), model=model, optimizer=optimizer, scheduler_state={}, fingerprint={}
        )
    assert list(tmp_path.iterdir()) == []
