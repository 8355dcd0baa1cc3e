"""The plan follows from shapes and total memory alone: halves, then recomputation; compiling where it pays."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from sartor.base.config import RunConfig
from sartor.base.errors import RunError
from sartor.base.rundir import RunDir
from sartor.model import compile
from sartor.model.batch import pack_batches
from sartor.model.kernels import CHUNK_BYTES
from sartor.model.load import adapt, save_weights
from sartor.model.shape import Shape
from sartor.training import preflight
from sartor.training.job import TrainingJob
from sartor.training.plan import CPU_HEAD_BYTES, Plan, PlanInputs, make_plan
from support.tiny import make_model
from support.training_runs import config_of, events, plan_of, rows, run_training, trained

GIB = 1 << 30
QWEN3_8B = Shape(36, 4096, 12288, 32, 4096, 1024, 151936, False)
QWEN3_06B = Shape(28, 1024, 3072, 16, 2048, 1024, 151936, True)


def facts(gib: float, shape: Shape | None = QWEN3_8B, device: str = "cuda", longest: int = 2048) -> PlanInputs:
    return PlanInputs(1000, 0, longest, 500_000, 300_000, device, int(gib * GIB), shape=shape)


def plan(gib: float, **settings: Any) -> Plan:
    made = {name: settings.pop(name) for name in ("shape", "device", "longest") if name in settings}
    return make_plan(RunConfig.from_dict({"dtype": "bfloat16", "lora_rank": 16, **settings}), facts(gib, **made))


def test_the_weights_of_known_models_are_counted() -> None:
    assert QWEN3_8B.weights == pytest.approx(8.19e9, rel=0.01)  # what its model card says
    assert QWEN3_06B.weights == pytest.approx(0.596e9, rel=0.01)


def test_a_models_own_config_gives_its_shape(tiny_model: Any) -> None:
    shape = Shape.from_config(tiny_model.config)
    real = sum(p.numel() for p in tiny_model.parameters())
    assert shape.weights == pytest.approx(real, rel=0.005)
    tuned = adapt(make_model(), config_of(lora_rank=4).method)
    assert shape.lora_weights(4) == sum(p.numel() for p in tuned.parameters() if p.requires_grad)


def test_less_memory_means_smaller_micro_batches_then_recomputation() -> None:
    ladder = [(p.gradient_checkpointing, p.micro_tokens) for p in (plan(gib) for gib in range(200, 10, -1))]
    assert ladder[0] == (False, 16384)
    assert (False, 8192) in ladder
    assert ladder[-1] == (True, 2048)  # the longest row: it cannot be cut
    assert [again for again, _ in ladder] == sorted(again for again, _ in ladder)
    for wanted in (False, True):
        rungs = [tokens for again, tokens in ladder if again is wanted]
        assert rungs == sorted(rungs, reverse=True)
        assert set(rungs) == {2048 << n for n in range(4)}


def test_every_number_that_follows_from_memory_has_its_reason() -> None:
    made = plan(24)
    assert made.gradient_checkpointing
    assert "21.60 usable (24.00 in all)" in str(made.reasons["micro_tokens"])
    assert "without it not even 2048 tokens would fit" in str(made.reasons["recomputation"])
    assert set(made.reasons) >= {"micro_tokens", "recomputation", "head_chunk_bytes", "compiled"}
    assert "more than the machine has: the pre-flight decides" in str(plan(8).reasons["micro_tokens"])
    assert Plan.from_json(made.to_json()) == made


def test_the_same_shapes_and_memory_give_the_same_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    first = plan(48)
    monkeypatch.setattr("psutil.virtual_memory", lambda: pytest.fail("free memory was looked at"))
    assert plan(48) == first


def test_recomputation_is_done_or_left_where_that_was_asked() -> None:
    assert plan(140, gradient_checkpointing=True).gradient_checkpointing
    for settings in ({"gradient_checkpointing": False}, {"disable_gradient_checkpointing": True}):
        refused = plan(24, **settings)
        assert not refused.gradient_checkpointing
        assert refused.micro_tokens == 2048


def test_full_tuning_and_four_bits_weigh_what_they_should() -> None:
    whole, adapter, quantised = (
        plan(1000, **more).reasons["micro_tokens"].params["needed"]
        for more in (
            {"finetuning_type": "full", "gradient_checkpointing": True},
            {"gradient_checkpointing": True},
            {"quantization_bit": 4, "gradient_checkpointing": True},
        )
    )
    # full: float32 weight, gradient and two moments (16 bytes) beside the bfloat16 copy; 4 bit: 1.1/2 of a byte
    assert whole - adapter == pytest.approx(16 * (8.19e9 - QWEN3_8B.lora_weights(16)) / GIB, rel=0.01)
    assert adapter - quantised == pytest.approx((2 - 0.55) * 6.95e9 / GIB, rel=0.02)


def test_a_processor_keeps_its_usual_micro_batch_until_memory_is_short() -> None:
    usual = plan(24, shape=QWEN3_06B, device="cpu", longest=300)
    assert (usual.micro_tokens, usual.gradient_checkpointing, usual.head_chunk_bytes) == (2048, False, CPU_HEAD_BYTES)
    assert CPU_HEAD_BYTES == CHUNK_BYTES
    assert plan(3, shape=QWEN3_06B, device="cpu", longest=300).gradient_checkpointing
    assert plan(24, shape=None, device="cpu", longest=300).micro_tokens == 2048


def test_logits_come_in_larger_blocks_on_a_larger_gpu() -> None:
    assert [plan(gib).head_chunk_bytes >> 20 for gib in (1, 24, 140)] == [32, 384, 1024]


def test_packs_stay_short_and_several_go_at_once() -> None:
    assert (plan(140).pack_tokens, plan(140, longest=3000).pack_tokens) == (2048, 3000)
    data = rows(40)
    (one,) = pack_batches(data, range(40), 10_000, 10_000, 0)
    together = pack_batches(data, range(40), 64, 256, 0)
    assert all(batch.ids_BT.shape[0] <= 4 and batch.ids_BT.shape[1] <= 64 for batch in together)
    assert any(batch.ids_BT.shape[0] == 4 for batch in together)
    assert sum(batch.label_tokens for batch in together) == one.label_tokens
    assert sorted(row for batch in together for row in batch.rows) == list(range(40))


def test_rows_of_packs_learn_what_one_long_row_learns(tmp_path: Path) -> None:
    config = config_of(packing=True, max_steps=3, optim="adamw_torch", per_device_train_batch_size=12)
    long = plan_of(config, rows(24), [])
    short = replace(long, pack_tokens=48, micro_tokens=144)
    one, two = (
        run_training(tmp_path / str(number), make_model(), config, rows(24), plan=p)
        for number, p in enumerate((long, short))
    )
    padded = [e["padded_tokens"] for e in events(tmp_path / "1", "step")]
    assert padded != [e["padded_tokens"] for e in events(tmp_path / "0", "step")]
    torch.testing.assert_close(trained(one), trained(two), rtol=1e-3, atol=2e-5)


@pytest.mark.parametrize("refused", [False, True])
def test_the_last_rung_of_the_pre_flight_is_recomputation(
    tmp_path: Path, tiny_model: Any, monkeypatch: pytest.MonkeyPatch, refused: bool
) -> None:
    """Nothing fits unless activations are recomputed."""
    from sartor.training.stages import sft

    real = sft.summed_loss

    def short(model: Any, batch: Any) -> Any:
        if not any(getattr(m, "gradient_checkpointing", False) for m in model.modules()):
            raise torch.OutOfMemoryError("out of memory")
        return real(model, batch)

    monkeypatch.setattr(sft, "summed_loss", short)
    config = config_of(disable_gradient_checkpointing=refused)
    model = adapt(tiny_model, config.method)
    plan = plan_of(config, rows(16), [])
    job = TrainingJob(
        RunDir(tmp_path), config, plan, model, rows(16), [], pad_id=257, write_model=lambda to: save_weights(model, to)
    )
    if refused:
        with pytest.raises(RunError, match="one row at a time"):
            preflight.preflight(job)
        return
    found, stepped_down = preflight.preflight(job)
    assert stepped_down.gradient_checkpointing
    assert found.micro_divisor == 1
    assert "single rows do not fit" in str(stepped_down.reasons["recomputation"])


def test_compiling_is_asked_for_or_pays() -> None:
    long = {"num_train_epochs": 20.0}
    assert [
        plan(140, device=d, **more).compiled
        for d, more in (
            ("cuda", {}),
            ("cuda", long),
            ("cpu", long),
            ("cpu", {"torch_compile": True}),
            ("cuda", {**long, "torch_compile": False}),
            ("cuda", {**long, "quantization_bit": 4}),
        )
    ] == [False, True, False, True, False, False]
    assert "2500 steps" in str(plan(140, **long).reasons["compiled"])


def test_without_a_compiler_the_run_goes_on_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*words: Any, **options: Any) -> Any:
        def fail(*inputs: Any) -> Any:
            raise RuntimeError("No working C++ compiler found\nlong trace")

        return fail

    monkeypatch.setattr(torch, "compile", broken)
    run_training(tmp_path, make_model(), config_of(torch_compile=True, max_steps=1), rows(4))
    (warning,) = events(tmp_path, "warning")
    assert "No working C++ compiler found" in warning["text"]
    assert len(events(tmp_path, "step")) == 1


@pytest.mark.real
@pytest.mark.filterwarnings("ignore")
def test_compiled_blocks_learn_the_same(tmp_path: Path) -> None:
    if why := compile._missing(torch.device("cpu")):
        pytest.skip(why)
    losses = []
    for asked in (False, True):
        folder = tmp_path / str(asked)
        model = run_training(folder, make_model(), config_of(torch_compile=asked, max_steps=6), rows(16))
        losses.append([event["loss"] for event in events(folder, "step")])
        compiled = [m for m in model.modules() if m._compiled_call_impl is not None]
        assert len(compiled) == (2 if asked else 0)
        assert events(folder, "warning") == []
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
