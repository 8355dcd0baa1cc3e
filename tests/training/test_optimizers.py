"""Every optimizer's declaration is complete, and what it declares is true."""

from __future__ import annotations

import copy
import importlib.util
from typing import Any

import pytest
import torch

from sartor.base.config import RunConfig
from sartor.base.errors import ConfigError
from sartor.base.settings import MethodSettings, TrainSettings
from sartor.training.optimizer import make_optimizer
from sartor.training.optimizers import OPTIMIZERS, OptimizerPlugin
from sartor.training.stages import STAGES, Stage


def test_the_settings_offer_every_stage_and_optimizer() -> None:
    for name in STAGES.names():
        assert MethodSettings(stage=name).stage == name
    for name in OPTIMIZERS.names():
        assert TrainSettings(optim=name).optim == name
    for key, wrong, near in (("stage", "sftt", "sft"), ("optim", "adamw_torhc", "adamw_torch")):
        with pytest.raises(ConfigError, match=f"Choose one of: .*{near}"):
            RunConfig.from_dict({key: wrong})


@pytest.mark.parametrize("stage", tuple(STAGES.all()), ids=lambda stage: stage.name)
def test_a_stage_declares_what_others_need(stage: Stage[object]) -> None:
    for text in (stage.label, stage.description, stage.row_error, stage.row_fix):
        assert text
    assert stage.examples
    assert set(stage.options) <= set(MethodSettings.model_fields)


@pytest.mark.parametrize("plugin", tuple(OPTIMIZERS.all()), ids=lambda plugin: plugin.name)
def test_an_optimizer_declares_what_others_need_and_takes_a_step(plugin: OptimizerPlugin) -> None:
    assert plugin.label
    assert plugin.state_bytes(4) > 0
    for example in plugin.examples:
        assert RunConfig.from_dict(dict(example)).train.optim == plugin.name
    if plugin.package and importlib.util.find_spec(plugin.package) is None:
        pytest.skip(f"{plugin.package} is not installed")
    torch.manual_seed(0)
    model = torch.nn.Linear(64, 64, bias=False)
    before = model.weight.detach().clone()
    optimizer = make_optimizer(model, TrainSettings(optim=plugin.name, learning_rate=0.1))
    model(torch.ones(2, 64)).square().sum().backward()
    optimizer.step()
    assert not torch.equal(model.weight, before)
    if not plugin.package:  # bitsandbytes keeps small states in 32 bits
        size = sum(
            value.numel() * value.element_size()
            for state in optimizer.state.values()
            for value in state.values()
            if isinstance(value, torch.Tensor) and value.ndim > 0
        )
        assert size / model.weight.numel() == pytest.approx(plugin.state_bytes(4), abs=0.1)


def test_muon_hands_all_but_hidden_matrices_to_adamw(tiny_model: Any) -> None:
    optimizer = make_optimizer(tiny_model, TrainSettings(optim="muon", learning_rate=0.01))
    names = {id(p): name for name, p in tiny_model.named_parameters()}
    by_muon = {names[id(p)] for group in optimizer.param_groups if group["hidden_matrix"] for p in group["params"]}
    assert by_muon == {name for name in names.values() if name.endswith("_proj.weight")}
    before = {name: p.detach().clone() for name, p in tiny_model.named_parameters()}
    for _ in range(2):
        tiny_model(input_ids=torch.arange(8)[None], labels=torch.arange(8)[None]).loss.backward()
        optimizer.step()
    assert all(not torch.equal(p, before[name]) for name, p in tiny_model.named_parameters())
    assert {name for state in optimizer.state.values() for name in state} == {
        *("momentum_buffer", "step", "exp_avg", "exp_avg_sq")
    }


def test_muon_steps_as_torch_and_adamw_do_and_resumes_to_the_same_bits(tiny_model: Any) -> None:
    other = copy.deepcopy(tiny_model)
    settings = TrainSettings(optim="muon", learning_rate=0.01, weight_decay=0.1)

    def step(model: Any, *optimizers: Any) -> None:
        model.zero_grad()
        model(input_ids=torch.arange(8)[None], labels=torch.arange(8)[None]).loss.backward()
        for optimizer in optimizers:
            optimizer.step()

    ours = make_optimizer(tiny_model, settings)
    matrices = [p for name, p in other.named_parameters() if name.endswith("_proj.weight")]
    muon = torch.optim.Muon(matrices, lr=0.01, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    embedding = [p for name, p in other.named_parameters() if "embed" in name]
    norms = [p for p in other.parameters() if p.ndim == 1]
    groups = [{"params": embedding, "weight_decay": 0.1}, {"params": norms, "weight_decay": 0.0}]
    adamw = torch.optim.AdamW(groups, lr=0.01)
    for _ in range(2):
        step(tiny_model, ours)
        step(other, muon, adamw)
    for one, two in zip(tiny_model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(one, two)
    again = make_optimizer(copy_of := copy.deepcopy(tiny_model), settings)
    again.load_state_dict(copy.deepcopy(ours.state_dict()))
    step(tiny_model, ours)
    step(copy_of, again)
    assert all(torch.equal(p, q) for p, q in zip(tiny_model.parameters(), copy_of.parameters(), strict=True))
