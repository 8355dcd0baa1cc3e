"""Every stage's loss: its paper's equation by hand, TRL 1.16's own code on the same numbers, twenty seeded steps."""

from __future__ import annotations

import json
import math
import os
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from sartor.base.config import RunConfig
from sartor.base.rundir import RunDir, read_json_lines
from sartor.base.settings import MethodSettings
from sartor.base.types import Encoded, Origin, Pair, TokenSequence, UnpairedSequence
from sartor.model.batch import collate, collate_pairs
from sartor.model.head import sequence_logps, token_losses
from sartor.model.load import adapt
from sartor.training import loop
from sartor.training.job import TrainingJob
from sartor.training.plan import PlanInputs, make_plan
from sartor.training.reference import Reference
from sartor.training.stages import STAGES, dpo, kto, rm

GOLDEN = Path(__file__).with_name("golden.json")
LOSSES = ("sigmoid", "hinge", "ipo", "kto_pair", "orpo", "simpo")


def sequence(random: Any, number: int, begins: int = 4) -> TokenSequence:
    length = int(random.integers(7, 20))
    return TokenSequence(
        random.integers(0, 255, length).astype(np.int32), ((begins, length - 1),), Origin("d", "d.json", number)
    )


def rows_of(stage: str, n: int, seed: int = 0) -> list[Encoded]:
    random, rows = np.random.default_rng(seed), []
    for number in range(1, n + 1):
        one, other = sequence(random, number), sequence(random, number)
        row: dict[str, Encoded] = {
            "sft": one,
            "rm": Pair(one, other, one.origin),
            "dpo": Pair(one, other, one.origin),
            "kto": UnpairedSequence(one, number % 3 > 0, one.origin),
            "pt": TokenSequence(one.ids, ((0, len(one)),), one.origin),
        }
        rows.append(row[stage])
    return rows


def trained(folder: Path, model: Any, rows: list[Encoded], **settings: Any) -> tuple[torch.Tensor, list[float]]:
    base = {
        "learning_rate": 1e-2,
        "per_device_train_batch_size": 4,
        "max_steps": 6,
        "bf16": False,
        "use_cpu": True,
        "plot_loss": False,
        "save_strategy": "no",
        "lora_rank": 4,
    }
    config = RunConfig.from_dict({**base, **settings})
    model = adapt(model, config.method)
    plan = make_plan(config, PlanInputs.from_rows(rows, [], "cpu"))
    loop.train(TrainingJob(RunDir(folder), config, plan, model, rows, [], pad_id=257, write_model=lambda to: None))
    losses = [event["loss"] for event in read_json_lines(folder / "events.jsonl") if event["kind"] == "step"]
    return torch.cat([p.detach().flatten() for p in model.parameters() if p.requires_grad]), losses


def reward_model(seed: int = 0) -> Any:
    from transformers import LlamaForSequenceClassification

    from support.tiny import make_model

    torch.manual_seed(seed)
    config = make_model().config
    config.num_labels = 1
    return LlamaForSequenceClassification(config).eval()


def model_of(stage: str) -> Any:
    from support.tiny import make_model

    return reward_model() if stage == "rm" else make_model()


# --- the equations, by hand --------------------------------------------------------------------------------------


def numbers() -> tuple[Any, Any, Any]:
    chosen = torch.tensor([-10.0, -4.0]), torch.tensor([5.0, 2.0])
    rejected = torch.tensor([-12.0, -3.0]), torch.tensor([4.0, 3.0])
    return chosen, rejected, (torch.tensor([-11.0, -3.5]), torch.tensor([-11.5, -4.0]))


def sigma(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def odds(logp: float) -> float:
    return math.exp(logp) / (1 - math.exp(logp))


BY_HAND = {
    # h = (−10+11) − (−12+11.5) = 1.5 and (−4+3.5) − (−3+4) = −1.5; β = 0.5
    "sigmoid": [-math.log(sigma(0.75)), -math.log(sigma(-0.75))],
    "hinge": [0.25, 1.75],
    "ipo": [(1 / 5 + 0.5 / 4 - 1) ** 2, (-0.5 / 2 - 1 / 3 - 1) ** 2],
    # mean log-ratios: chosen (1 − 0.5)/2 = 0.25, rejected (−0.5 + 1)/2 = 0.25
    "kto_pair": [
        (2 - sigma(0.5 * (1 - 0.25)) - sigma(0.5 * (0.25 + 0.5))) / 2,
        (2 - sigma(0.5 * (-0.5 - 0.25)) - sigma(0.5 * (0.25 - 1))) / 2,
    ],
    "orpo": [
        2 - 0.5 * math.log(sigma(math.log(odds(-2) / odds(-3)))),
        2 - 0.5 * math.log(sigma(math.log(odds(-2) / odds(-1)))),
    ],
    "simpo": [-math.log(sigma(0.5 * (-2 + 3) - 0.25)), -math.log(sigma(0.5 * (-2 + 1) - 0.25))],
}


@pytest.mark.parametrize("kind", LOSSES)
def test_pair_losses_equal_their_equations(kind: Any) -> None:
    method = MethodSettings(pref_loss=kind, pref_beta=0.5, simpo_gamma=0.25)
    chosen, rejected, reference = numbers()
    ours = dpo.pair_losses(method, chosen, rejected, reference if dpo.PLUGIN.needs_reference(method) else None)
    assert ours.tolist() == pytest.approx(BY_HAND[kind], rel=1e-5)


def test_conservative_dpo_mixes_both_orders() -> None:
    method = MethodSettings(pref_beta=0.5, dpo_label_smoothing=0.1)
    loss = dpo.pair_losses(method, *numbers())[0].item()
    assert loss == pytest.approx(-0.9 * math.log(sigma(0.75)) - 0.1 * math.log(sigma(-0.75)), rel=1e-5)


def test_dpo_begins_at_ln_2_and_ipo_at_its_margin(tiny_model: Any) -> None:
    pairs = rows_of("dpo", 3)
    batch = collate_pairs(pairs, [0, 1, 2], 257)  # type: ignore[arg-type]
    model = adapt(tiny_model, MethodSettings(lora_rank=4, lora_dropout=0.5))
    model.eval()
    for kind, begin in (("sigmoid", math.log(2)), ("hinge", 1.0), ("ipo", 25.0), ("kto_pair", 0.5)):
        method = MethodSettings(pref_loss=kind, lora_rank=4)  # type: ignore[arg-type]
        assert dpo.PLUGIN.objective(model, method)(batch).item() == pytest.approx(3 * begin, rel=1e-5)


def test_log1mexp_is_exact_near_zero_and_far_and_has_gradients() -> None:
    x = torch.tensor([-1e-30, -1e-4, -0.5, -1.0, -20.0], requires_grad=True)
    y = dpo._log1mexp(x)
    assert y[1:].tolist() == pytest.approx([math.log(-math.expm1(v)) for v in (-1e-4, -0.5, -1.0, -20.0)], rel=1e-4)
    (gradient,) = torch.autograd.grad(y.sum(), x)
    assert torch.isfinite(gradient).all()


def test_kto_by_hand() -> None:
    method = MethodSettings(pref_beta=0.5, kto_chosen_weight=2.0, kto_rejected_weight=3.0)
    loss = kto.unpaired_losses(
        method, torch.tensor([-3.0, -5.0]), torch.tensor([-4.0, -4.5]), torch.tensor([True, False]), torch.tensor(0.2)
    )
    assert loss.tolist() == pytest.approx([2 * (1 - sigma(0.5 * 0.8)), 3 * (1 - sigma(0.5 * 0.7))], rel=1e-6)


def test_row_logps_are_the_sums_of_token_losses(tiny_model: Any) -> None:
    rows = [row for row in rows_of("sft", 4) if isinstance(row, TokenSequence)]
    batch = collate(rows, range(4), 257)
    logp, count = sequence_logps(tiny_model, batch)
    assert count.tolist() == [row.label_tokens for row in rows]
    parts = token_losses(tiny_model, batch).split([int(c) for c in count])
    assert logp.tolist() == pytest.approx([-part.sum().item() for part in parts], rel=1e-5)


def test_mismatched_rows_join_each_prompt_with_the_next_answer(tiny_model: Any) -> None:
    rows = [row for row in rows_of("kto", 5) if isinstance(row, UnpairedSequence)]
    plan = make_plan(RunConfig.from_dict({"stage": "kto", "use_cpu": True}), PlanInputs.from_rows(rows, [], "cpu"))
    (batch,) = kto.PLUGIN.kl_batches(rows, [3, 1, 4], plan.limits(), 257, slice(None))
    lines = {tuple(ids[:n].tolist()) for ids, n in zip(batch.ids_BT, batch.lengths_B.tolist())}  # type: ignore[union-attr]
    longest = max(len(rows[r].sequence) for r in (3, 1, 4))
    expected = {
        tuple([*rows[a].sequence.ids[:4].tolist(), *rows[b].sequence.ids[4:].tolist()][:longest])
        for a, b in ((3, 1), (1, 4), (4, 3))
    }
    assert lines == expected


# --- TRL 1.16's own code on the same numbers ---------------------------------------------------------------------


class Fixed:
    """Stands for a model whose forward gives TRL the log-probabilities that a test chose; TRL's loss does the rest."""

    def __init__(self, per_token: torch.Tensor) -> None:
        self.per_token = per_token

    def __call__(self, **inputs: Any) -> Any:
        zeros = torch.zeros_like(self.per_token)
        return SimpleNamespace(
            log_probs=self.per_token,
            entropy=zeros,
            mean_logits=zeros,
            logits=self.per_token[..., None],
            argmax_logits=zeros,
            is_top1=zeros.bool(),
            token_accuracy=zeros,
            aux_loss=None,
        )


class Anything(SimpleNamespace):
    """A trainer without a training: what its loss does not read is never made."""

    def __getattr__(self, name: str) -> Any:
        return False


TRAINED = SimpleNamespace(training=True, is_gradient_checkpointing=False)


def spread(logp: torch.Tensor, count: torch.Tensor, length: int) -> torch.Tensor:
    """Per-token values that sum to each row's logp over its first `count` positions."""
    position = torch.arange(length)[None]
    return torch.where(position < count[:, None], (logp / count)[:, None], 0.0)


def trl_trainer(**fields: Any) -> Any:
    from accelerate import Accelerator

    metrics: dict[str, Any] = {"train": defaultdict(list), "eval": defaultdict(list)}
    args = SimpleNamespace(gradient_checkpointing_kwargs=None, center_rewards_coefficient=None)
    return Anything(
        accelerator=Accelerator(cpu=True),
        _metrics=metrics,
        args=args,
        _total_train_tokens=0,
        _tp_size=1,
        ld_alpha=None,
        **fields,
    )


@pytest.mark.parametrize("kind", ["sigmoid", "hinge", "ipo"])
def test_dpo_equals_trls_trainer(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from trl.trainer import dpo_trainer

    chosen, rejected, reference = numbers()
    logp, count = torch.cat([chosen[0], rejected[0]]), torch.cat([chosen[1], rejected[1]])
    mask = torch.zeros(4, 7, dtype=torch.long)
    for line, n in enumerate(count.int().tolist()):
        mask[line, 1 : 1 + n] = 1
    monkeypatch.setattr(dpo_trainer, "is_peft_model", lambda model: False)
    policy, before = (Fixed(spread(values, count, 6)) for values in (logp, torch.cat(reference)))
    policy.training = True  # type: ignore[attr-defined]
    trainer = trl_trainer(
        ref_model=before,
        model=TRAINED,
        loss_types=[kind],
        loss_weights=[1.0],
        beta=0.5,
        f_divergence_type="reverse_kl",
        label_smoothing=0.0,
    )
    inputs = {
        "input_ids": torch.ones(4, 7, dtype=torch.long),
        "attention_mask": torch.ones(4, 7),
        "completion_mask": mask,
    }
    theirs = dpo_trainer.DPOTrainer._compute_loss(trainer, policy, inputs, False)
    ours = dpo.pair_losses(MethodSettings(pref_loss=kind, pref_beta=0.5), chosen, rejected, reference).mean()
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-5)


def test_kto_equals_trls_trainer(monkeypatch: pytest.MonkeyPatch) -> None:
    from trl.trainer import kto_trainer

    logp, before = torch.tensor([-3.0, -5.0, -2.0]), torch.tensor([-4.0, -4.5, -2.5])
    drift_logp, drift_before = torch.tensor([-6.0, -7.0, -4.0]), torch.tensor([-6.5, -7.5, -3.0])
    count = torch.tensor([3.0, 4.0, 2.0])
    good = torch.tensor([True, False, True])
    monkeypatch.setattr(kto_trainer, "is_peft_model", lambda model: False)
    policy, reference = Fixed(spread(logp, count, 5)), Fixed(spread(before, count, 5))
    policy.training = True  # type: ignore[attr-defined]
    trainer = trl_trainer(
        ref_model=reference,
        model=TRAINED,
        calculate_KL=True,
        loss_type="kto",
        beta=0.5,
        desirable_weight=2.0,
        undesirable_weight=3.0,
        _compute_kl_logps=lambda model, batch: drift_logp if model is policy else drift_before,
    )
    mask = torch.ones(3, 6, dtype=torch.long)
    inputs = {"input_ids": mask, "attention_mask": mask, "completion_mask": mask, "label": good}
    theirs = kto_trainer.KTOTrainer._compute_loss(trainer, policy, inputs, False)
    drift = (drift_logp - drift_before).mean().clamp(min=0)
    method = MethodSettings(pref_beta=0.5, kto_chosen_weight=2.0, kto_rejected_weight=3.0)
    assert kto.unpaired_losses(method, logp, before, good, drift).mean().item() == pytest.approx(
        theirs.item(), rel=1e-5
    )


def test_rm_equals_trls_trainer() -> None:
    from trl.trainer import reward_trainer

    scores = torch.tensor([1.0, -0.5, 0.25, 2.0])
    trainer = trl_trainer(model=TRAINED)
    model = Fixed(scores)
    model.training = True  # type: ignore[attr-defined]
    inputs = {"input_ids": torch.ones(4, 2), "attention_mask": torch.ones(4, 2)}
    theirs = reward_trainer.RewardTrainer.compute_loss(trainer, model, inputs)
    assert rm.pair_losses(*scores.chunk(2)).mean().item() == pytest.approx(theirs.item(), rel=1e-6)


def experimental(name: str) -> Any:
    import importlib

    os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
    return importlib.import_module(f"trl.experimental.{name}.{name}_trainer")


def test_orpo_and_simpo_equal_trls_experimental_trainers() -> None:
    (logp_w, count_w), (logp_l, count_l), _ = numbers()
    mean_w, mean_l = logp_w / count_w, logp_l / count_l
    trainer = SimpleNamespace(
        beta=0.5,
        alpha=0.0,
        simpo_gamma=0.25,
        loss_type="simpo",
        label_smoothing=0.0,
        accelerator=SimpleNamespace(device="cpu"),
    )
    odds_ratio = experimental("orpo").ORPOTrainer.odds_ratio_loss(trainer, mean_w, mean_l)[0]
    simpo = experimental("cpo").CPOTrainer.cpo_loss(trainer, mean_w, mean_l)[0]
    for kind, theirs in (("orpo", -mean_w - odds_ratio), ("simpo", simpo)):
        method = MethodSettings(pref_loss=kind, pref_beta=0.5, simpo_gamma=0.25)  # type: ignore[arg-type]
        ours = dpo.pair_losses(method, (logp_w, count_w), (logp_l, count_l), None)
        torch.testing.assert_close(ours, theirs)


# --- the models around the losses --------------------------------------------------------------------------------


def test_rewards_are_what_transformers_classifier_gives() -> None:
    model = reward_model()
    rows = [row for row in rows_of("sft", 4) if isinstance(row, TokenSequence)]
    batch = collate(rows, range(4), 257)
    theirs = model(input_ids=batch.ids_BT, attention_mask=(batch.ids_BT != 257).long()).logits[:, 0]
    torch.testing.assert_close(rm.rewards(model, batch), theirs)


@pytest.mark.parametrize(
    "settings", [{}, {"finetuning_type": "full"}, {"additional_target": "embed_tokens"}], ids=["lora", "full", "extra"]
)
def test_the_reference_stays_what_the_model_was(settings: dict[str, Any], tiny_model: Any) -> None:
    batch = collate([row for row in rows_of("sft", 3) if isinstance(row, TokenSequence)], range(3), 257)
    before = sequence_logps(tiny_model, batch)[0].detach()
    model = adapt(tiny_model, RunConfig.from_dict(settings).method)
    reference = Reference(model)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.1
    moved = sequence_logps(model, batch)[0].detach()
    with reference.of(model) as held:
        torch.testing.assert_close(sequence_logps(held, batch)[0], before)
    torch.testing.assert_close(sequence_logps(model, batch)[0].detach(), moved)
    assert not torch.allclose(moved, before)


@pytest.mark.parametrize("stage", ["pt", "rm", "dpo", "kto"])
def test_batch_1_times_4_is_4_times_1(stage: str, tmp_path: Path) -> None:
    rows = rows_of(stage, 11)
    ways = [{"per_device_train_batch_size": 4}, {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 4}]
    results = [trained(tmp_path / str(n), model_of(stage), rows, stage=stage, **way) for n, way in enumerate(ways)]
    assert results[0][1] == pytest.approx(results[1][1], rel=1e-4)
    torch.testing.assert_close(results[0][0], results[1][0], rtol=1e-3, atol=1e-4)


def test_every_stage_has_examples_and_a_golden_file() -> None:
    stages = STAGES.names()
    assert stages == ("dpo", "kto", "pt", "rm", "sft")
    for stage in STAGES.all():
        for example in stage.examples:
            assert RunConfig.from_dict(dict(example)).method.stage == stage.name
    assert set(json.loads(GOLDEN.read_text(encoding="utf-8"))) == {*stages, *LOSSES}


@pytest.mark.parametrize("name", ["sft", "pt", "rm", "dpo", "kto", *LOSSES])
def test_twenty_seeded_steps_equal_the_golden_file(name: str, tmp_path: Path) -> None:
    """Written by `SARTOR_GOLDEN=1 pytest …`, when a change of the numbers is meant."""
    stage = "dpo" if name in LOSSES else name
    settings = {"stage": stage, "max_steps": 20, "pref_ftx": 0.1 if name == "dpo" else 0.0}
    settings |= {"pref_loss": name} if name in LOSSES else {}
    losses = trained(tmp_path, model_of(stage), rows_of(stage, 9), **settings)[1]
    golden = json.loads(GOLDEN.read_text(encoding="utf-8")) if GOLDEN.exists() else {}
    if os.environ.get("SARTOR_GOLDEN"):
        golden[name] = [float(f"{loss:.6g}") for loss in losses]
        GOLDEN.write_text(json.dumps(golden, indent=1) + "\n", encoding="utf-8")
    assert losses == pytest.approx(golden[name], rel=2e-3, abs=1e-4)
    if name not in ("kto_pair",):
        assert losses[-1] < losses[0]
