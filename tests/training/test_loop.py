"""The loop's arithmetic: batch 1 × 4 ≡ 4 × 1, packed ≡ padded, one step by hand, resumed ≡ straight through."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from sartor.base.errors import ConfigError, Interrupted, RunError
from sartor.base.rundir import RunDir, read_json_lines
from sartor.model.batch import collate, collate_packs, global_batches, micro_batches, packed_batches
from sartor.model.head import summed_loss
from sartor.training import checkpoint
from sartor.training.stages import sft
from support.training_runs import StopAt, config_of, events, plan_of, rows, run_training, trained


def test_global_batches_depend_on_seed_and_epoch_only_and_use_every_row_once() -> None:
    first = global_batches(10, 4, seed=1, epoch=0)
    assert first == global_batches(10, 4, seed=1, epoch=0)
    assert first != global_batches(10, 4, seed=1, epoch=1)
    assert first != global_batches(10, 4, seed=2, epoch=0)
    assert sorted(row for batch in first for row in batch) == list(range(10))
    assert [len(batch) for batch in first] == [4, 4, 2]


def test_micro_batches_are_sorted_and_within_the_limits() -> None:
    lengths = [3, 9, 5, 9, 2]
    assert micro_batches([0, 1, 2, 3, 4], lengths, 2, 100) == [[1, 3], [2, 0], [4]]
    assert micro_batches([0, 1, 2, 3, 4], lengths, 9, 18) == [[1, 3], [2, 0, 4]]
    assert packed_batches([0, 1, 2, 3, 4], lengths, 12) == [[1, 0], [3, 4], [2]]


def test_the_loss_of_a_padded_batch_is_the_sum_over_label_tokens(tiny_model: Any) -> None:
    data = rows(3)
    loss = summed_loss(tiny_model, collate(data, [0, 1, 2], 257))
    alone = 0.0
    for row in data:
        logits = tiny_model(input_ids=torch.from_numpy(row.ids.astype(np.int64))[None]).logits[0, :-1]
        labels = torch.from_numpy(row.labels[1:].astype(np.int64))
        alone += F.cross_entropy(logits, labels, ignore_index=-100, reduction="sum").item()
    assert loss.item() == pytest.approx(alone, rel=1e-5)


def test_packed_rows_do_not_see_each_other(tiny_model: Any) -> None:
    data = rows(5)
    packed = summed_loss(tiny_model, collate_packs(data, [[0, 1, 2, 3, 4]], 257))
    padded = summed_loss(tiny_model, collate(data, [0, 1, 2, 3, 4], 257))
    assert packed.item() == pytest.approx(padded.item(), rel=1e-5)


def test_unlearned_positions_get_exactly_no_gradient(tiny_model: Any) -> None:
    """Only what precedes a label in its own row matters: later tokens and other rows change nothing."""
    data = rows(2)
    embedded = tiny_model.get_input_embeddings()
    batch = collate(data, [0, 1], 257)
    kept: list[torch.Tensor] = []

    def keep(module: Any, inputs: Any, output: torch.Tensor) -> None:
        output.retain_grad()
        kept.append(output)

    embedded.register_forward_hook(keep)
    summed_loss(tiny_model, batch).backward()
    gradient = kept[0].grad
    assert gradient is not None
    for line, row in enumerate(data):
        assert gradient[line, len(row) - 1 :].abs().max() == 0
        assert gradient[line, : len(row) - 1].abs().min() > 0


@pytest.mark.parametrize("settings", [{"finetuning_type": "full"}, {"lora_rank": 4}])
def test_batch_1_times_4_is_4_times_1_and_packing_changes_nothing(tmp_path: Path, settings: dict[str, Any]) -> None:
    from support.tiny import make_model

    data = rows(11)
    ways = [
        {"per_device_train_batch_size": 4},
        {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 4},
        {"per_device_train_batch_size": 4, "packing": True},
    ]
    results = []
    for number, way in enumerate(ways):
        torch.manual_seed(0)
        model = run_training(tmp_path / str(number), make_model(), config_of(**settings, **way), data)
        results.append((trained(model), [e["loss"] for e in events(tmp_path / str(number), "step")]))
    for weights, losses in results[1:]:
        torch.testing.assert_close(weights, results[0][0], rtol=1e-4, atol=2e-5)
        assert losses == pytest.approx(results[0][1], rel=1e-4)


def test_a_run_leaves_the_files_that_people_know(tmp_path: Path, tiny_model: Any) -> None:
    data, held_out = rows(9), rows(3, seed=5)
    run_training(tmp_path, tiny_model, config_of(plot_loss=True, save_strategy="epoch"), data, held_out=held_out)
    log = list(read_json_lines(tmp_path / "trainer_log.jsonl"))
    assert [line["current_steps"] for line in log] == [1, 2, 3, 4, 5, 6]
    assert set(log[0]) == {
        "current_steps",
        "total_steps",
        "loss",
        "lr",
        "epoch",
        "percentage",
        "elapsed_time",
        "remaining_time",
    }
    results = json.loads((tmp_path / "all_results.json").read_text(encoding="utf-8"))
    assert results["train_loss"] == pytest.approx(sum(line["loss"] for line in log) / 6)
    assert results["eval_loss"] == events(tmp_path, "eval")[-1]["eval_loss"]
    assert (tmp_path / "training_loss.png").stat().st_size > 1000
    assert (tmp_path / "adapter_model.safetensors").exists()
    assert [p.name for p in RunDir(tmp_path).checkpoints()] == ["checkpoint-3"]
    assert RunDir(tmp_path).state() == "finished"
    assert log[-1]["loss"] < log[0]["loss"]


@pytest.mark.parametrize("settings", [{"lora_rank": 4, "lora_dropout": 0.2}, {"finetuning_type": "full"}])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_resumes_to_the_same_bits(tmp_path: Path, settings: dict[str, Any], number: int) -> None:
    from support.tiny import make_model

    data, config = rows(9), config_of(**settings)
    straight = run_training(tmp_path / "a", make_model(), config, data)
    with pytest.raises(Interrupted) as stopped:
        run_training(tmp_path / "b", make_model(), config, data, callbacks=[StopAt(4, number)])
    assert stopped.value.exit_code == 128 + number
    assert RunDir(tmp_path / "b").state() == "interrupted"
    torch.manual_seed(99)  # nothing may come from the process
    folder, not_used = checkpoint.latest(RunDir(tmp_path / "b"))
    assert folder is not None
    assert not_used == []
    resumed = run_training(tmp_path / "b", make_model(), config, data, resume=folder)
    assert torch.equal(trained(straight), trained(resumed))
    losses = [[(e["step"], e["loss"], e["learning_rate"]) for e in events(tmp_path / x, "step")] for x in "ab"]
    assert losses[0] == losses[1]


def test_a_checkpoint_of_other_data_is_refused_by_name(tmp_path: Path) -> None:
    from support.tiny import make_model

    data, config = rows(9), config_of(lora_rank=4)
    with pytest.raises(Interrupted):
        run_training(tmp_path, make_model(), config, data, callbacks=[StopAt(2, 2)], fingerprint={"data": "a"})
    folder, _ = checkpoint.latest(RunDir(tmp_path))
    with pytest.raises(RunError, match="different data"):
        run_training(tmp_path, make_model(), config, data, resume=folder, fingerprint={"data": "b"})


@pytest.mark.parametrize("damage", ["cut", "flip", "remove", "add"])
def test_damage_to_any_file_is_seen_and_the_one_before_is_used(tmp_path: Path, tiny_model: Any, damage: str) -> None:
    run_training(tmp_path, tiny_model, config_of(save_strategy="steps", save_steps=2), rows(9))
    run = RunDir(tmp_path)
    newest, older = run.checkpoints()
    for file in sorted(newest.iterdir()):
        before = file.read_bytes()
        if damage == "cut":
            file.write_bytes(before[:-1])
        elif damage == "flip":
            file.write_bytes(bytes([before[0] ^ 1]) + before[1:])
        elif damage == "remove":
            file.unlink()
        else:
            (newest / "foreign.bin").write_bytes(b"x")
        found, not_used = checkpoint.latest(run)
        assert found == older, file.name
        assert newest.name in str(not_used[0])
        file.write_bytes(before)
        (newest / "foreign.bin").unlink(missing_ok=True)
    assert checkpoint.latest(run) == (newest, [])


def test_steps_that_are_no_number_are_skipped_named_and_end_the_run(tmp_path: Path, tiny_model: Any) -> None:
    with torch.no_grad():
        tiny_model.model.norm.weight[0] = float("nan")
    with pytest.raises(RunError, match="NaN or infinite"):
        run_training(tmp_path, tiny_model, config_of(), rows(16))
    skipped = events(tmp_path, "skipped_step")
    assert len(skipped) == 3
    assert len(skipped[0]["rows"]) == 4
    assert RunDir(tmp_path).state() == "failed"


def test_recomputing_activations_changes_nothing_and_what_is_not_offered_is_said(tmp_path: Path) -> None:
    from support.tiny import make_model

    plain, again = (
        run_training(tmp_path / str(asked), make_model(), config_of(gradient_checkpointing=asked), rows(9))
        for asked in (False, True)
    )
    torch.testing.assert_close(trained(plain), trained(again))
    checkpointed = plan_of(config_of(gradient_checkpointing=True), rows(9), [])
    assert "gradient_checkpointing" in str(checkpointed.reasons["recomputation"])
    with pytest.raises(ConfigError, match="held out"):
        plan_of(config_of(load_best_model_at_end=True), rows(9), [])


@pytest.mark.parametrize(("size", "batches"), [(3, [3, 3, 3, 1]), (16, [10])])
def test_evaluation_takes_the_rows_at_once_that_the_settings_say(
    tmp_path: Path, tiny_model: Any, monkeypatch: pytest.MonkeyPatch, size: int, batches: list[int]
) -> None:
    seen: list[int] = []

    def loss(model: Any, batch: Any) -> Any:
        if not model.training:
            seen.append(len(batch.ids_BT))
        return summed_loss(model, batch)

    monkeypatch.setattr(sft, "summed_loss", loss)
    config = config_of(per_device_eval_batch_size=size, max_steps=1)
    run_training(tmp_path, tiny_model, config, rows(4), held_out=rows(10, seed=1))
    assert seen == batches


def test_eval_steps_alone_means_every_so_many_steps() -> None:
    held_out = rows(4, seed=1)
    assert plan_of(config_of(eval_steps=2), rows(12), held_out).eval_steps == 2
    assert plan_of(config_of(), rows(12), held_out).eval_steps == 3  # each epoch
    assert plan_of(config_of(eval_strategy="no"), rows(12), held_out).eval_steps is None
    with pytest.raises(ConfigError, match="needs evaluations"):
        plan_of(config_of(eval_strategy="no", load_best_model_at_end=True), rows(12), held_out)
