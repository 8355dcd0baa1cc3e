"""Methods, optimizers, schedules: what moves, what it starts from, what is saved, and that each resumes to the bit."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from sartor.base.config import RunConfig
from sartor.base.errors import ConfigError, Interrupted, ModelError
from sartor.base.rundir import RunDir
from sartor.base.settings import MethodSettings, TrainSettings
from sartor.model.load import adapt, load_adapter, save_weights
from sartor.training import checkpoint, loop
from sartor.training.job import TrainingJob
from sartor.training.optimizer import make_optimizer, make_scheduler
from sartor.training.plan import PlanInputs, make_plan
from sartor.training.trackers import Trackers
from support.training_runs import StopAt, events, rows, trained

IDS = torch.arange(30).view(2, 15)


def moving(model: Any) -> set[str]:
    return {name for name, p in model.named_parameters() if p.requires_grad}


def run(folder: Path, model: Any, *, adapters: tuple[str, ...] = (), **options: Any) -> Any:
    settings = {
        "learning_rate": 1e-2,
        "per_device_train_batch_size": 4,
        "max_steps": 5,
        "bf16": False,
        "use_cpu": True,
        "plot_loss": False,
        "save_strategy": "no",
        "lora_rank": 4,
    }
    callbacks, resume = options.pop("callbacks", ()), options.pop("resume", None)
    held_out = options.pop("held_out", [])
    config = RunConfig.from_dict({**settings, **options})
    model = adapt(model, config.method, adapters=adapters)
    job = TrainingJob(
        RunDir(folder),
        config,
        make_plan(config, PlanInputs.from_rows(rows(12), held_out, "cpu")),
        model,
        rows(12),
        held_out,
        pad_id=257,
        write_model=lambda to: save_weights(model, to),
        callbacks=callbacks,
        resume=resume,
    )
    loop.train(job)
    return model


METHODS: dict[str, dict[str, Any]] = {
    "full": {"finetuning_type": "full"},
    "freeze": {"finetuning_type": "freeze", "freeze_trainable_layers": 1},
    "dora": {"use_dora": True},
    "rslora": {"use_rslora": True},
    "pissa": {"pissa_init": True, "pissa_iter": 4},
    "pissa-exact": {"pissa_init": True, "pissa_iter": -1, "use_rslora": True},
    "lora+": {"loraplus_lr_ratio": 16},
    "names": {"lora_target": "q_proj,v_proj"},
    "additional": {"additional_target": "embed_tokens"},
    "neftune": {"neftune_noise_alpha": 0.2},
    "pure": {"pure_bf16": True, "finetuning_type": "full"},
    "muon": {"optim": "muon"},
    "adafactor": {"optim": "adafactor", "finetuning_type": "full"},
}


@pytest.mark.parametrize("name", METHODS)
def test_each_method_learns_and_resumes_to_the_same_bits(name: str, tmp_path: Path) -> None:
    from support.tiny import make_model

    straight = run(tmp_path / "a", make_model(), **METHODS[name])
    with pytest.raises(Interrupted):
        run(tmp_path / "b", make_model(), **METHODS[name], callbacks=[StopAt(2, 15)])
    torch.manual_seed(99)
    folder, _ = checkpoint.latest(RunDir(tmp_path / "b"))
    resumed = run(tmp_path / "b", make_model(), **METHODS[name], resume=folder)
    assert torch.equal(trained(straight), trained(resumed))
    losses = [event["loss"] for event in events(tmp_path / "a", "step")]
    assert losses == [event["loss"] for event in events(tmp_path / "b", "step")]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("name", ["dora", "pissa", "pissa-exact", "names", "additional"])
def test_what_is_saved_answers_as_what_was_trained(name: str, tmp_path: Path) -> None:
    from peft import PeftModel

    from support.tiny import make_model

    model = run(tmp_path, make_model(), **METHODS[name]).eval()
    loaded = PeftModel.from_pretrained(make_model(), str(tmp_path)).eval()
    torch.testing.assert_close(loaded(input_ids=IDS).logits, model(input_ids=IDS).logits, rtol=1e-3, atol=1e-4)
    assert not torch.allclose(loaded(input_ids=IDS).logits, make_model()(input_ids=IDS).logits, atol=1e-3)


def test_pissa_starts_at_the_model_with_its_principal_part_in_the_adapter(tiny_model: Any) -> None:
    from support.tiny import make_model

    model = adapt(tiny_model, MethodSettings(lora_rank=4, pissa_init=True, pissa_iter=-1)).eval()
    torch.testing.assert_close(model(input_ids=IDS).logits, make_model()(input_ids=IDS).logits, rtol=1e-3, atol=1e-4)
    layer = model.get_base_model().model.layers[0].self_attn.q_proj
    product = layer.scaling["default"] * layer.lora_B["default"].weight @ layer.lora_A["default"].weight
    singular = torch.linalg.svdvals(make_model().model.layers[0].self_attn.q_proj.weight)
    torch.testing.assert_close(torch.linalg.svdvals(product.detach())[:4], singular[:4], rtol=1e-3, atol=1e-4)


def test_freeze_moves_the_last_layers_or_the_first_and_the_modules_named(tiny_model: Any) -> None:
    layers = {0: set(), 1: set()}  # type: dict[int, set[str]]
    for wanted in (1, -1):
        method = MethodSettings(
            finetuning_type="freeze", freeze_trainable_layers=wanted, freeze_extra_modules=("norm",)
        )
        layers[0 if wanted < 0 else 1] = moving(adapt(tiny_model, method))
    for number in (0, 1):
        assert {n for n in layers[number] if "layers." in n} == {
            n for n, _ in tiny_model.named_parameters() if f"layers.{number}." in n
        }
        assert "model.norm.weight" in layers[number]
    with pytest.raises(ModelError, match="2 layers"):
        adapt(tiny_model, MethodSettings(finetuning_type="freeze", freeze_trainable_layers=3))


def test_rslora_scales_by_the_root_of_the_rank_and_lora_plus_by_its_ratio(tiny_model: Any) -> None:
    model = adapt(tiny_model, MethodSettings(lora_rank=4, lora_alpha=6, use_rslora=True))
    assert model.get_base_model().model.layers[0].mlp.up_proj.scaling["default"] == pytest.approx(6 / math.sqrt(4))
    optimizer = make_optimizer(model, TrainSettings(learning_rate=1e-3), lora_lr_ratio=16)
    names = {id(p): n for n, p in model.named_parameters()}
    rates = {("lora_B" in names[id(p)], round(g["lr"], 6)) for g in optimizer.param_groups for p in g["params"]}
    assert rates == {(False, 1e-3), (True, 16e-3)}


def test_noise_is_within_its_bound_and_only_in_training(tiny_model: Any) -> None:
    clean = tiny_model.get_input_embeddings()(IDS).detach()
    model = adapt(tiny_model, MethodSettings(neftune_noise_alpha=5.0))
    embed = model.get_input_embeddings()
    assert torch.equal(model.eval().get_input_embeddings()(IDS), clean)
    model.train()
    noise = (embed(IDS) - clean).abs().max().item()
    limit = 5 / math.sqrt(15 * 32)
    assert 0.9 * limit < noise <= limit


def test_an_adapter_is_trained_on_or_lies_below_a_new_one(tmp_path: Path) -> None:
    from support.tiny import make_model

    first = run(tmp_path / "first", make_model()).eval()
    before = first(input_ids=IDS).logits.detach()
    path = (str(tmp_path / "first"),)
    on = adapt(make_model(), MethodSettings(lora_rank=9), adapters=path).eval()
    assert on.peft_config["default"].r == 4
    torch.testing.assert_close(on(input_ids=IDS).logits, before)
    second = run(tmp_path / "second", make_model(), adapters=path, create_new_adapter=True, lora_rank=2).eval()
    assert second.peft_config["default"].r == 2
    loaded = load_adapter(make_model(), tmp_path / "second").eval()  # over the original base, alone
    assert loaded.peft_config["default"].r == 6
    torch.testing.assert_close(loaded(input_ids=IDS).logits, second(input_ids=IDS).logits, rtol=1e-3, atol=1e-4)
    assert not torch.allclose(loaded(input_ids=IDS).logits, before, atol=1e-3)


def test_a_new_adapter_on_other_layers_keeps_the_old_one(tmp_path: Path) -> None:
    from support.tiny import make_model

    run(tmp_path / "first", make_model(), lora_target="q_proj")
    options = {"create_new_adapter": True, "lora_target": "up_proj", "lora_rank": 3}
    second = run(tmp_path / "second", make_model(), adapters=(str(tmp_path / "first"),), **options).eval()
    loaded = load_adapter(make_model(), tmp_path / "second").eval()
    torch.testing.assert_close(loaded(input_ids=IDS).logits, second(input_ids=IDS).logits, rtol=1e-3, atol=1e-4)


def test_what_moves_is_float32_on_a_bfloat16_model_unless_pure(tiny_model: Any) -> None:
    model = tiny_model.to(torch.bfloat16)
    pure = adapt(model, MethodSettings(finetuning_type="full"), pure_bf16=True)
    assert {p.dtype for p in pure.parameters()} == {torch.bfloat16}
    frozen = adapt(model, MethodSettings(finetuning_type="freeze", freeze_trainable_layers=1))
    assert {(p.requires_grad, p.dtype) for p in frozen.parameters()} == {(True, torch.float32), (False, torch.bfloat16)}


def test_eight_bits_need_bitsandbytes(tiny_model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", None)
    with pytest.raises(ConfigError, match="bitsandbytes"):
        make_optimizer(tiny_model, TrainSettings(optim="adamw_8bit"))


SCHEDULES = [
    "linear",
    "cosine",
    "constant",
    "constant_with_warmup",
    "polynomial",
    "inverse_sqrt",
    "cosine_with_min_lr",
    "cosine_with_restarts",
    "warmup_stable_decay",
]


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_of_transformers_begins_and_ends_as_named(name: Any, tiny_model: Any) -> None:
    config = RunConfig.from_dict(
        {"lr_scheduler_type": name, "max_steps": 20, "warmup_steps": 4, "learning_rate": 1e-3, "use_cpu": True}
    )
    plan = make_plan(config, PlanInputs.from_rows(rows(8), [], "cpu"))
    optimizer = make_optimizer(tiny_model, config.train)
    scheduler = make_scheduler(optimizer, config.train, plan)
    rates = []
    for _ in range(20):
        rates.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    assert rates[4 if name != "constant" else 0] == pytest.approx(1e-3)
    assert (rates[0] == 0) == (name != "constant")
    assert (rates[-1] < 1e-3) == (name not in ("constant", "constant_with_warmup"))


def test_a_schedule_with_wrong_options_is_refused(tiny_model: Any) -> None:
    config = RunConfig.from_dict({"lr_scheduler_kwargs": {"nonsense": 1}, "use_cpu": True})
    plan = make_plan(config, PlanInputs.from_rows(rows(8), [], "cpu"))
    with pytest.raises(ConfigError, match="nonsense"):
        make_scheduler(make_optimizer(tiny_model, config.train), config.train, plan)


def test_the_best_weights_come_back_at_the_end_and_training_stops_early(tmp_path: Path, tiny_model: Any) -> None:
    options: dict[str, Any] = {
        "max_steps": 30,
        "eval_strategy": "steps",
        "eval_steps": 2,
        "learning_rate": 5e-2,
        "save_total_limit": 1,
        "load_best_model_at_end": True,
        "early_stopping_steps": 2,
        "held_out": rows(6, seed=3),
    }
    model = run(tmp_path, tiny_model, **options)
    measured = {event["step"]: event["eval_loss"] for event in events(tmp_path, "eval")}
    best = min(measured, key=lambda step: measured[step])
    assert max(measured) == best + 4 < 30
    saved = load_file(tmp_path / f"checkpoint-{best}" / "adapter_model.safetensors")
    final = load_file(tmp_path / "adapter_model.safetensors")
    assert all(torch.equal(saved[name], final[name]) for name in saved)
    assert events(tmp_path, "best")[0]["step"] == best
    assert model is not None


class Ear:
    """A tracker that keeps what it is told."""

    requires_logging_directory = False
    heard: list[Any]

    def __init__(self, run_name: str) -> None:
        self.heard = [run_name]
        Ear.last = self  # type: ignore[attr-defined]

    def start(self) -> None:
        self.heard.append("start")

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        self.heard.append(values)

    def log(self, values: dict[str, Any], step: int) -> None:
        self.heard.append((step, values["train/loss"]))

    def finish(self) -> None:
        self.heard.append("finish")


def test_trackers_hear_every_step(tmp_path: Path, tiny_model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from accelerate import tracking

    monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, "ear", Ear)
    monkeypatch.setattr(tracking, "_available_trackers", ["ear"])
    run(tmp_path, tiny_model, callbacks=[Trackers(["ear"], "name", tmp_path, {"seed": 1, "fsdp": None})])
    losses = [(event["step"], event["loss"]) for event in events(tmp_path, "step")]
    assert Ear.last.heard == ["name", "start", {"seed": 1}, *losses, "finish"]  # type: ignore[attr-defined]
    for name, what in (("wandb", "not installed"), ("bell", "Unknown tracker")):
        with pytest.raises(ConfigError, match=what):
            Trackers([name], "name", tmp_path, {})


def test_full_training_on_bfloat16_computes_in_it_and_keeps_float32_weights(tmp_path: Path) -> None:
    from support.tiny import make_model

    run(tmp_path / "a", make_model(), finetuning_type="full")
    half = run(tmp_path / "b", make_model().to(torch.bfloat16), finetuning_type="full", bf16=True, dtype="bfloat16")
    assert {p.dtype for p in half.parameters()} == {torch.float32}
    plain, mixed = ([event["loss"] for event in events(tmp_path / name, "step")] for name in "ab")
    assert mixed == pytest.approx(plain, rel=0.02)
    assert mixed != plain
